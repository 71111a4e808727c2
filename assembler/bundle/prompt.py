"""The prompt of a sample as runs of text and slots, the same for training and serving."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assembler.bundle.manifest import PromptPart
from assembler.errors import AssemblerError


def segments(prompt: Sequence[PromptPart], sample: Mapping[str, Any]) -> list[dict[str, str]]:
    """The prompt with the sample's columns filled in: {"text"} and {"slot"} in turn.

    Neighbouring texts are joined, since they are tokenised as one.
    """
    found: list[dict[str, str]] = []
    for part in prompt:
        if part.slot is not None:
            found.append({"slot": part.slot})
            continue
        text = column(sample, part.column) if part.column is not None else part.text or ""
        if found and "text" in found[-1]:
            found[-1] = {"text": found[-1]["text"] + text}
        else:
            found.append({"text": text})
    return found


def prompt_ids(
    parts: Sequence[Mapping[str, str]], rows: Mapping[str, Sequence[int]], tokenize: Callable[[str], list[int]]
) -> list[int]:
    """Token ids of `segments(...)`; the slot named s becomes the ids in rows[s] (vocab_size + feature row)."""
    return [i for part in parts for i in (rows[part["slot"]] if "slot" in part else tokenize(part["text"]))]


def column(sample: Mapping[str, Any], name: str) -> str:
    """The sample's text under `name`."""
    if not isinstance(sample.get(name), str):
        raise AssemblerError(f"prompt: the sample needs a text '{name}'; it has {', '.join(sample) or 'nothing'}.")
    return sample[name]
