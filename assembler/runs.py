"""A run folder: the spec as it was trained, where its weights came from, what was learned and every metric.

RUN/spec.yaml           the spec, with `--set` applied
RUN/run.json            the folder its relative sources start from, and the digests of its weights
RUN/metrics.jsonl       one line a step: stage, step, loss, lr
RUN/stages/NAME/        checkpoints while the stage runs; learned.safetensors when it is done
RUN/tensorboard/        the same metrics as plots
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.check import check
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.spec import Spec, read

if TYPE_CHECKING:
    from assembler.compile import Assembly


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path

    @property
    def spec_path(self) -> Path:
        """The spec the run is trained from."""
        return self.folder / "spec.yaml"

    @property
    def metrics_path(self) -> Path:
        """The metrics, one JSON object a line."""
        return self.folder / "metrics.jsonl"

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
        spec.root = Path(self.record()["base"])
        return spec

    def record(self) -> dict[str, Any]:
        """run.json."""
        path = self.folder / "run.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AssemblerError(f"{path} cannot be read ({error}); start the run again in another folder") from error

    def create(self, spec: Spec) -> None:
        """Make the folder, with the spec and the digests of its weights."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = {"base": str(spec.base.resolve()), "weights": _digests(check(spec))}
        write_text(self.folder / "run.json", json.dumps(record, indent=2) + "\n")
        write_text(self.spec_path, spec.dump())

    def trim_metrics(self, keep: list[str], stage: str | None, step: int) -> None:
        """Drop lines written after the checkpoint that is resumed from: stages in `keep` stay, `stage` up to `step`."""
        lines = [
            json.loads(line) for line in self.metrics_path.read_text(encoding="utf-8").splitlines() if _whole(line)
        ]
        kept = [x for x in lines if x["stage"] in keep or (x["stage"] == stage and x["step"] <= step)]
        write_text(self.metrics_path, "".join(json.dumps(x) + "\n" for x in kept))


def _whole(line: str) -> bool:
    """Whether a line was written to its end."""
    return line.startswith("{") and line.endswith("}")


def _digests(graph: Graph) -> dict[str, dict[str, str]]:
    """Of each weight source: its files and their SHA-256."""
    from assembler.bundle.runtime import file_hash
    from assembler.weights import fetch, parse_source

    found = {}
    for part in graph.parts.values():
        for source in part.weight_sources().values():
            path = fetch(parse_source(source), graph.base)
            files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
            found[source] = {file.name: file_hash(file) for file in files}
    return found


def write_text(path: Path, text: str) -> None:
    """Write a file aside and rename it into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def learned_names(assembly: Assembly, names: list[str]) -> list[str]:
    """Keys of what training these nodes and adapters may change: their parameters, and the buffers of the nodes."""
    chosen = {key for name in names for key in assembly.of(name)}
    nodes = tuple(f"nodes.{name}." for name in names if name not in assembly.adapters)
    parameters = {key for key, _ in assembly.named_parameters(remove_duplicate=False)}
    state = assembly.state_dict()
    return [key for key in state if key in chosen or (key.startswith(nodes) and key not in parameters)]


def save_learned(assembly: Assembly, names: list[str], path: Path) -> None:
    """Write what these nodes and adapters have learned, aside first."""
    from safetensors.torch import save_file

    state = assembly.state_dict()
    tensors = {key: state[key].detach().cpu().contiguous().clone() for key in learned_names(assembly, names)}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, aside, metadata={"learned": ",".join(names)})
    os.replace(aside, path)


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


def load_run(folder: Path) -> tuple[Graph, Assembly]:
    """The graph and the trained model of a run: as far as its last finished stage.

    Raises:
        AssemblerError: the folder is no run, or no stage is finished.
    """
    from assembler.compile import compile_graph

    run = Run(folder)
    graph = check(run.spec()).require()
    done = [stage.name for stage in graph.document.stages if run.learned(stage.name).is_file()]
    if not done:
        raise AssemblerError(
            f"{folder}: no stage is finished yet; go on with `assembler train SPEC --run {folder} --resume`"
        )
    assembly = compile_graph(graph)
    load_learned(assembly, run.learned(done[-1]))
    return graph, assembly
