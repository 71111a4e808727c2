"""Models that can be asked: a run answers with torch, a bundle with onnxruntime; both take the same sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from assembler.bundle.manifest import Manifest
from assembler.errors import AssemblerError
from assembler.runs import Run
from ui.workspace import Workspace

Hear = Callable[[str], Any]


class Talker(Protocol):
    """`wants` says what a sample must have, and the kind of each; `ask` gives the answer and tells it as it grows."""

    wants: dict[str, str]

    def ask(self, sample: dict[str, Any], hear: Hear) -> Answer: ...


@dataclass(frozen=True)
class Answer:
    """What was said, in how many tokens (None: a class, said at once) and how long it took."""

    text: str
    tokens: int | None
    seconds: float


class TorchTalker:
    """The trained model of a run, one question at a time; where several nodes answer, each has its line."""

    def __init__(self, folder: Path) -> None:
        from assembler.evaluate import TorchAnswers, answering
        from assembler.runs import load_run

        self.graph, assembly = load_run(folder)
        able = [node for node in self.graph.objectives if getattr(self.graph.parts[node], "answers", None)]
        self.answers = {node: TorchAnswers(self.graph, assembly, node) for node in able or [answering(self.graph)]}
        self.lock = threading.Lock()
        self.columns = {name: self.graph.column(name) for name in self.graph.samples}
        self.wants: dict[str, str] = {name: self.graph.processor(name).kind for name in self.graph.samples}
        for node in filter(self._speaks, self.answers):
            for slot, column in self.graph.text_columns(node).items():
                self.columns[slot], self.wants[slot] = column, "text"

    def _speaks(self, node: str) -> bool:
        return hasattr(self.answers[node].collator, "prompts")

    def ask(self, sample: dict[str, Any], hear: Hear) -> Answer:
        """The greedy answers."""
        row = {column: sample[name] for name, column in self.columns.items()}
        said: dict[str, str] = {}
        tokens: int | None = None
        with self.lock:
            began = time.perf_counter()
            for node in self.answers:
                said[node], count = self._answer(node, row, lambda text, node=node: hear(_told({**said, node: text})))  # type: ignore[misc]
                tokens = tokens if count is None else count + (tokens or 0)
            took = time.perf_counter() - began
        return Answer(_told(said), tokens, took)

    def _answer(self, node: str, row: dict[str, Any], hear: Hear) -> tuple[str, int | None]:
        """(what a node says, in how many tokens)."""
        answers = self.answers[node]
        if not self._speaks(node):
            text = _words(answers([row])[0], self.graph.parts[node])
            hear(text)
            return text, None
        said = answers.collator.text
        ids = answers.ids([row], lambda found: hear(said(found[0])))[0]
        return said(ids), len(ids)

    def held_out(self, count: int) -> list[dict[str, Any]]:
        """Samples from the rows that the run did not learn from, each with what is `expected` of every node."""
        from assembler.batches import split
        from assembler.evaluate import expected_columns

        _, rows = split(self.graph)
        right = {node: expected_columns(self.graph, node) for node in self.answers}
        return [
            {
                **{name: row[column] for name, column in self.columns.items()},
                "expected": _told({node: ", ".join(str(row[c]) for c in columns) for node, columns in right.items()}),
            }
            for row in rows[:count]
        ]


def _words(answer: Any, part: Any) -> str:
    """An answer that is no text: a label as it is, scores to four figures, of a pair how alike its halves are."""
    if part.answers == "pair":
        one, other = answer
        return f"similarity {sum(a * b for a, b in zip(one, other, strict=True)):.4f}"
    scores = answer if isinstance(answer, list) else [answer]
    return ", ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in scores)


def _told(said: dict[str, str]) -> str:
    """What one node says, or of several each after its name."""
    return next(iter(said.values())) if len(said) == 1 else "\n".join(f"{node}: {text}" for node, text in said.items())


class BundleTalker:
    """An exported bundle."""

    def __init__(self, folder: Path) -> None:
        from assembler.bundle.runtime import Bundle

        self.bundle = Bundle(folder)
        self.lock = threading.Lock()
        self.wants = wants_of(self.bundle.manifest)

    def ask(self, sample: dict[str, Any], hear: Hear) -> Answer:
        """The greedy answer."""
        said = self.bundle.text
        with self.lock:
            began = time.perf_counter()
            ids = self.bundle.generate_ids([sample], tell=lambda found: hear(said(found[0])))[0]
            took = time.perf_counter() - began
        return Answer(said(ids), len(ids), took)


def wants_of(manifest: Manifest) -> dict[str, str]:
    """What a sample for a bundle must have, and the kind of each."""
    inputs: dict[str, str] = {name: item.processor.kind for name, item in manifest.inputs.items()}
    return inputs | {part.column: "text" for part in manifest.prompt if part.column is not None}


def talkers(workspace: Workspace) -> dict[str, Path]:
    """Every run with a finished stage, and every bundle, by what it is called on the page."""
    from ui.exporting import bundles_in
    from ui.training import runs_in

    found = {f"{run.folder.name} · torch": run.folder for run in runs_in(workspace) if has_learned(run)}
    return found | {f"{folder.name} · ONNX": folder for folder in bundles_in(workspace)}


def has_learned(run: Run) -> bool:
    """Whether a stage of the run is finished."""
    return any(run.folder.glob("stages/*/learned.safetensors"))


def stamp(folder: Path) -> float:
    """Changes when the model in the folder does, so that an old one is not asked."""
    files = [*folder.glob("stages/*/learned.safetensors"), folder / "manifest.json"]
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def load(folder: Path) -> Talker:
    """The model in a folder of the workspace.

    Raises:
        AssemblerError: there is none.
    """
    Workspace.current().inside(folder)
    if (folder / "manifest.json").is_file():
        return BundleTalker(folder)
    if (folder / "spec.yaml").is_file():
        return TorchTalker(folder)
    raise AssemblerError(f"{folder.name} is neither a run nor a bundle any more; choose another model")
