"""One question to a bundle, from files and words."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assembler.errors import AssemblerError


def ask(
    folder: Path,
    files: Mapping[str, Sequence[str]],
    prompts: Sequence[str],
    max_new_tokens: int | None = None,
    adapter: str | None = None,
) -> str:
    """The greedy answer of a bundle, or of a GGUF file, which is made one for the moment.

    `files` gives for each kind of input (`image`, `audio`, ...) items `FILE` or `INPUT=FILE`; `prompts` are `TEXT` or
    `NAME=TEXT`; `adapter` is a LoRA of the bundle.

    Raises:
        AssemblerError: an input is missing, unknown or given twice, or a file cannot be read.
    """
    from assembler.bundle.runtime import Bundle
    from assembler.readers import READERS

    if folder.suffix == ".gguf":
        from assembler.gguf_bundle import write_gguf_bundle

        with tempfile.TemporaryDirectory(prefix="assembler-") as made:
            write_gguf_bundle(folder, Path(made))
            return ask(Path(made), files, prompts, max_new_tokens, adapter)
    bundle = Bundle(folder)
    inputs = {name: item.processor.kind for name, item in bundle.manifest.inputs.items()}
    texts = [part.column for part in bundle.manifest.prompt if part.column is not None]
    texts += [name for name in inputs if inputs[name] == "text" and name not in texts]
    named = {
        kind: _named(files.get(kind, ()), [n for n in inputs if inputs[n] == kind], f"--{kind}") for kind in READERS
    }
    sample: dict[str, Any] = dict(_named(prompts, texts, "--prompt"))
    for kind, reader in READERS.items():
        sample |= {name: reader(Path(file)) for name, file in named[kind].items()}
    return bundle.generate([sample], max_new_tokens, adapter)[0].strip()


def _named(given: Sequence[str], wanted: list[str], option: str) -> dict[str, str]:
    """Each input's value: by name where one is said, else in the order of the bundle's inputs."""
    found: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        if not equals or name not in wanted:
            left = [slot for slot in wanted if slot not in found]
            if not left:
                if not wanted:
                    raise AssemblerError(f"{option} {item}: the bundle takes none; leave {option} away")
                raise AssemblerError(f"{option} {item}: the bundle takes {len(wanted)} of these ({', '.join(wanted)})")
            name, text = left[0], item
        if name in found:
            raise AssemblerError(f"{option} {item}: {name} is given twice")
        found[name] = text
    missing = [slot for slot in wanted if slot not in found]
    if missing:
        raise AssemblerError(f"the bundle also wants {option} {missing[0]}=...")
    return found
