"""A run folder: the spec as it was trained, where its weights came from, what was learned and every metric.

RUN/spec.yaml           the spec, with `--set` applied
RUN/run.json            the folder its relative sources start from, and the digests of its weights
RUN/skipped.json        with on_bad: skip, the number of each data row that is left out, and why
RUN/metrics.jsonl       one line a step: stage, step, loss, lr, time
RUN/stages/NAME/        checkpoints while the stage runs; learned.safetensors when it is done
RUN/samples/            with --watch: a few held-out rows, and the answers to them as the model learns
RUN/tensorboard/        the same metrics as plots
RUN/process.json        the process that trains, or that did
RUN/train.log           what it said, where the page started it
RUN/.lock               held by the process that trains
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from assembler.errors import AssemblerError, told
from assembler.fetching import fetch_weights, fetched_graph
from assembler.files import aside, file_hash, write_text
from assembler.graph import Graph
from assembler.spec import Spec, read

if TYPE_CHECKING:
    from assembler.compile import Assembly


class Record(BaseModel):
    """run.json: the folder that relative sources start from, and of each weight source its files' SHA-256."""

    model_config = ConfigDict(extra="forbid")

    base: str
    weights: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path

    @property
    def spec_path(self) -> Path:
        """The spec the run is trained from."""
        return self.folder / "spec.yaml"

    @property
    def skipped_path(self) -> Path:
        """The data rows that are left out, and why."""
        return self.folder / "skipped.json"

    @property
    def metrics_path(self) -> Path:
        """The metrics, one JSON object a line."""
        return self.folder / "metrics.jsonl"

    @property
    def answers_path(self) -> Path:
        """Answers to the rows that are watched, one JSON object a line."""
        return self.folder / "samples" / "answers.jsonl"

    @property
    def process_path(self) -> Path:
        """The process that trains, or that did."""
        return self.folder / "process.json"

    @property
    def log_path(self) -> Path:
        """What the process said."""
        return self.folder / "train.log"

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.folder / "stages" / name

    def learned(self, name: str) -> Path:
        """What is learned when the stage is done; the file's existence says that it is."""
        return self.stage(name) / "learned.safetensors"

    def spec(self) -> Spec:
        """The run's spec, its sources starting from where the original stood."""
        if not self.spec_path.is_file():
            raise AssemblerError(f"{self.folder} is not a run: it has no spec.yaml; name the folder given to --run")
        spec = read(self.spec_path)
        spec.root = Path(self.record().base)
        return spec

    def record(self) -> Record:
        """run.json."""
        path = self.folder / "run.json"
        try:
            return Record.model_validate_json(path.read_bytes())
        except (OSError, ValueError) as error:
            raise AssemblerError(f"{path} cannot be read ({error}); start the run again in another folder") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Make the folder and keep every other process out of it, until the block or this process ends.

        Raises:
            AssemblerError: another process is in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", blocking=False):
                yield
        except Timeout as error:
            raise AssemblerError(f"{self.folder} is in use by another process; wait for it, or stop it") from error

    def create(self, graph: Graph) -> None:
        """Fill the folder with the spec and the digests of its weights; the spec comes last and makes it a run."""
        record = Record(base=str(graph.base.resolve()), weights=weight_digests(graph))
        write_text(self.folder / "run.json", record.model_dump_json(indent=2) + "\n")
        write_text(self.spec_path, graph.spec.dump())

    def keep_bad(self, graph: Graph) -> None:
        """Note the data rows that are left out, so that a run that is resumed leaves out the same."""
        if graph.bad is not None and not self.skipped_path.exists():
            write_text(self.skipped_path, json.dumps(graph.bad, indent=1) + "\n")

    def recall_bad(self, graph: Graph) -> None:
        """Leave out the data rows that the run began without."""
        if self.skipped_path.exists():
            graph.bad = {int(index): why for index, why in json.loads(self.skipped_path.read_bytes()).items()}

    def check_weights(self, graph: Graph) -> None:
        """See that the files of the weights are those that the run began with.

        Raises:
            AssemblerError: one of them has changed.
        """
        began, now = self.record().weights, weight_digests(graph)
        changed = next((source for source in now if now[source] != began.get(source)), None)
        if changed is not None:
            raise AssemblerError(
                f"{self.folder}: the weights of {changed} are no longer those that the run began with; put them back "
                "(for the hub: name the revision, hf:ORG/NAME@REVISION), or start another run"
            )

    def trim(self, keep: list[str], stage: str | None, step: int) -> None:
        """Drop metrics and answers written after the checkpoint that is resumed from: stages in `keep` stay, `stage` up
        to `step`."""
        for path in (self.metrics_path, self.answers_path):
            lines = lines_of(path)
            kept = [x for x in lines if x["stage"] in keep or (x["stage"] == stage and x["step"] <= step)]
            if path.exists():
                write_text(path, "".join(json.dumps(x) + "\n" for x in kept))


def lines_of(path: Path, tail: int | None = None) -> list[dict[str, Any]]:
    """The JSON objects of a file, or of its last `tail` bytes, one a line; a line that is not whole is left out."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = 0 if tail is None else max(0, end - tail)
        file.seek(max(0, start - 1))
        text = file.read().decode("utf-8", "replace")
    lines = text.partition("\n")[2] if start else text  # from the first line that begins there
    return [json.loads(line) for line in lines.splitlines() if _whole(line)]


def _whole(line: str) -> bool:
    """Whether a line was written to its end."""
    return line.startswith("{") and line.endswith("}")


def weight_digests(graph: Graph) -> dict[str, dict[str, str]]:
    """Of each weight source: its files and their SHA-256."""
    found = {}
    for source, path in fetch_weights(graph).items():
        files = sorted([*path.glob("*.safetensors"), *path.glob("model.bin")]) if path.is_dir() else [path]
        found[source] = {file.name: file_hash(file) for file in files}
    return found


def learned_names(assembly: Assembly, names: list[str]) -> list[str]:
    """Keys of what training these nodes and adapters may change: their parameters and buffers."""
    chosen = {key for name in names for key in assembly.of(name)}
    places = {f".adapters.{name}." if name in assembly.adapters else f"nodes.{name}." for name in names}
    parameters = {key for key, _ in assembly.named_parameters(remove_duplicate=False)}
    state = assembly.state_dict()
    return [key for key in state if key in chosen or (key not in parameters and any(x in key for x in places))]


def save_learned(assembly: Assembly, names: list[str], path: Path) -> None:
    """Write what these nodes and adapters have learned, aside first."""
    from safetensors.torch import save_file

    state = assembly.state_dict()
    tensors = {key: state[key].detach().cpu().contiguous().clone() for key in learned_names(assembly, names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with told(f"{path} could not be written"), aside(path) as draft:
        save_file(tensors, draft, metadata={"learned": ",".join(names)})


def load_learned(assembly: Assembly, path: Path) -> None:
    """Put what was learned back, bit for bit.

    Raises:
        AssemblerError: the file does not fit the model.
    """
    import torch

    from assembler.weights import load_state

    own, state = assembly.state_dict(), load_state(path)
    wrong = next((k for k, tensor in state.items() if k not in own or own[k].shape != tensor.shape), None)
    if wrong is not None:
        raise AssemblerError(f"{path}: {wrong} does not fit the model of this spec; it was trained from another one")
    with torch.no_grad():
        for key, tensor in state.items():
            own[key].copy_(tensor)


def graph_of(folder: Path) -> Graph:
    """The graph of a run, its weights on this computer and unchanged."""
    run = Run(folder)
    graph = fetched_graph(run.spec())
    run.check_weights(graph)
    run.recall_bad(graph)
    return graph


def load_run(folder: Path) -> tuple[Graph, Assembly]:
    """The graph and the trained model of a run: as far as its last finished stage.

    Raises:
        AssemblerError: the folder is no run, or no stage is finished.
    """
    from assembler.compile import compile_graph

    run, graph = Run(folder), graph_of(folder)
    done = [stage.name for stage in graph.document.stages if run.learned(stage.name).is_file()]
    if not done:
        raise AssemblerError(
            f"{folder}: no stage is finished yet; go on with `assembler train SPEC --run {folder} --resume`"
        )
    assembly = compile_graph(graph)
    load_learned(assembly, run.learned(done[-1]))
    return graph, assembly
