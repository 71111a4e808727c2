"""A bundle whose graphs run elsewhere: the same preparation and decoding, with a call for every graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from assembler.bundle.decoding import CACHES, DTYPES, PAST, PRESENT, Decoding
from assembler.bundle.runtime import Bundle
from assembler.errors import AssemblerError
from assembler.files import file_hash
from assembler.serving.chat import read_medium
from assembler.serving.limits import read_limits
from assembler.serving.sampling import Text

GRAPHS = "graphs.json"
"""What the graphs take and give: file -> {model, inputs: [[name, type, shape]], outputs: [name]}."""
TEXT, SUFFIX = "text_", "suffix_"
"""What the names of texts, and of files' suffixes such as .ply, begin with."""
LIMITS = read_limits([], [])
Run = Callable[[str, dict[str, np.ndarray], list[str]], list[np.ndarray]]
"""Calls the model of a name with tensors and returns those that are wanted."""


class Port(NamedTuple):
    """A tensor of a graph, as onnxruntime tells it."""

    name: str
    type: str
    shape: list[Any]


class Remote:
    """What stands for the session of a graph that runs elsewhere."""

    def __init__(self, facts: Mapping[str, Any], run: Run) -> None:
        self.model, self._run = facts["model"], run
        self.inputs = [Port(*port) for port in facts["inputs"]]
        self.outputs = [Port(name, "", []) for name in facts["outputs"]]

    def get_inputs(self) -> list[Port]:
        """Its inputs, in order."""
        return self.inputs

    def get_outputs(self) -> list[Port]:
        """Its outputs, in order."""
        return self.outputs

    def run(self, names: list[str] | None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs, all of them where none are named."""
        return self._run(self.model, dict(feeds), names or [port.name for port in self.outputs])


class Called(Decoding):
    """A decoder that is called with its cache and gives it back; nothing of it is kept where it runs.

    Whether a shorter prompt is padded on the left, and whether the cache has its whole length from the start, is as the
    graph wants it.
    """

    inputs = {"inputs_embeds", "attention_mask"}

    def __init__(self, session: Any, cache: str) -> None:
        super().__init__(session, "cpu")
        self.left = CACHES[cache].left  # type: ignore[misc]
        self.whole = not self.left
        self.positions = any(port.name == "position_ids" for port in session.get_inputs())

    def _reserve(self, batch: int, length: int) -> None:
        room = length if self.whole else 0
        self.cache = {x.name: np.zeros((batch, x.shape[1], room, x.shape[3]), DTYPES[x.type]) for x in self.past}

    def _run(self, embeds: np.ndarray) -> np.ndarray:
        mask = self._mask()
        feeds = {"inputs_embeds": np.ascontiguousarray(embeds), "attention_mask": mask, **self.cache}
        if self.positions:
            feeds["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)[:, -embeds.shape[1] :]
        values: dict[str, np.ndarray] = dict(zip(self.names, self.session.run(self.names, feeds), strict=True))
        self.cache = {name: values[name.replace(PAST, PRESENT)] for name in self.cache}
        return values["logits"]


class Led(Bundle):
    """The bundle whose manifest, tokenizer and vocabularies are in `folder`, and whose graphs `run` calls."""

    def __init__(self, folder: Path, run: Run) -> None:
        self._facts, self._call = json.loads((Path(folder) / GRAPHS).read_text(encoding="utf-8")), run
        super().__init__(folder)

    def _verify(self) -> None:
        """Every file that is here is the one that was exported."""
        for name, digest in self.manifest.files.items():
            path = self._path(name)
            if path.exists() and file_hash(path) != digest:
                raise AssemblerError(f"{path} is not the file that was exported; write the repository again")

    def _session(self, name: str, inputs: set[str]) -> Any:
        return Remote(self._facts[name], self._call)

    def decoding(self, adapter: str | None = None) -> Decoding:
        """A new batch's decoding; LoRAs are not sent along.

        Raises:
            AssemblerError: one is asked for.
        """
        if adapter is not None:
            raise AssemblerError(f"{adapter}: Triton's models are called without adapters; serve the bundle itself")
        return Called(self.decoder, self.manifest.cache)

    def pieces(self, given: Mapping[str, Any], most: int | None = None) -> Iterator[str]:
        """The greedy answer as it grows: `given` holds the bytes of a file for each input, and each text as text_NAME.

        Raises:
            AssemblerError: something is missing or cannot be read.
        """
        limit = self.manifest.max_new_tokens if most is None else min(most, self.manifest.max_new_tokens)
        embeds, lengths = self.encode([self._sample(given)])
        limit = self.room(lengths, limit)
        decoding, text = self.decoding(), Text(self.tokenizer, ())
        for step in range(limit):
            logits = decoding.start(embeds, lengths, limit) if step == 0 else decoding.step(embeds)
            token = int(logits[0].argmax())
            if token in self.manifest.stop:
                break
            if piece := text.add(token):
                yield piece
            embeds = self.embed(np.array([[token]], np.int64), None)
        if rest := text.rest():
            yield rest

    def _sample(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The raw sample: texts decoded, files read by the guarded readers that the server of one machine has."""
        sample: dict[str, Any] = {}
        for name, content in given.items():
            if name.startswith(TEXT):
                sample[name.removeprefix(TEXT)] = content.decode("utf-8", "replace")
            elif name in self.manifest.inputs:
                kind = self.manifest.inputs[name].processor.kind
                suffix = given.get(f"{SUFFIX}{name}", b"").decode("ascii", "replace")
                sample[name] = (
                    content.decode("utf-8", "replace")
                    if kind == "text"
                    else read_medium(name, kind, suffix, content, LIMITS)
                )
        return sample
