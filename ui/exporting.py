"""The bundles of a workspace: written by a process of its own, looked at, packed for download."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from assembler.errors import AssemblerError
from assembler.files import write_text
from assembler.runs import Run
from ui.jobs import Job
from ui.training import runs_in
from ui.workspace import Workspace

CHUNK = 1 << 20
_measuring = threading.Lock()
MEASURED = 4
"""Rows that a bundle's speed is measured on."""


def bundles_in(workspace: Workspace) -> list[Path]:
    """Every finished bundle, the youngest first."""
    if not workspace.bundles.is_dir():
        return []
    found = [path for path in workspace.bundles.iterdir() if (path / "manifest.json").is_file()]
    return sorted((p for p in found if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime, reverse=True)


def job_of(workspace: Workspace, name: str) -> Job:
    """The process that writes a bundle, or that did."""
    return Job(workspace.bundles / ".jobs" / name)


def writing(workspace: Workspace) -> list[str]:
    """The names of bundles that are being written, or whose writing failed."""
    folder = workspace.bundles / ".jobs"
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted(name for name in names if not (workspace.bundles / name / "manifest.json").is_file())


def arguments(workspace: Workspace, run: Run, name: str, precision: str) -> list[str]:
    """`assembler export` and what follows."""
    return ["export", str(run.folder), "--out", str(workspace.bundles / name), "--precision", precision]


def begin(workspace: Workspace, run: Run, name: str, precision: str) -> Job:
    """Start to write a bundle.

    Raises:
        AssemblerError: the name is taken or none, or it is being written already.
    """
    target = workspace.named(workspace.bundles, name)
    if target.exists():
        raise AssemblerError(f"there is a bundle {name} already; choose another name")
    job = job_of(workspace, name)
    if not job.running:
        job.log.unlink(missing_ok=True)
    job.start(arguments(workspace, run, name, precision))
    return job


def dismiss(workspace: Workspace, name: str) -> None:
    """Forget a writing that failed.

    Raises:
        AssemblerError: it is going on.
    """
    job = job_of(workspace, name)
    if job.running:
        raise AssemblerError(f"{name} is being written; stop it first")
    shutil.rmtree(job.folder, ignore_errors=True)


def delete(workspace: Workspace, name: str) -> None:
    """Remove a bundle's folder, out of sight first."""
    folder = workspace.named(workspace.bundles, name)
    grave = folder.with_name(f".deleted-{name}")
    shutil.rmtree(grave, ignore_errors=True)
    folder.rename(grave)
    shutil.rmtree(grave)
    shutil.rmtree(job_of(workspace, name).folder, ignore_errors=True)


class GraphParity(BaseModel):
    """How far a graph of a bundle is from torch."""

    graph: str
    max_abs: float
    relative: float


class Drift(BaseModel):
    """How far the answers' probabilities are from torch's, in nats a token, and how far they may be."""

    kl: float
    bound: float


class Parity(BaseModel):
    """parity.json, as far as it is shown: `greedy` is the share of answers that equal torch's."""

    precision: str
    samples: int
    graphs: list[GraphParity]
    greedy: float
    bytes: int
    drift: Drift | None = None


def parity_of(folder: Path) -> Parity | None:
    """A bundle's parity report; None where it has none that can be read."""
    try:
        return Parity.model_validate_json((folder / "parity.json").read_bytes())
    except (OSError, ValidationError):
        return None


class Speed(BaseModel):
    """How fast a bundle answered held-out rows on this computer, one at a time: medians over the rows."""

    first_token: float
    tokens_per_second: float | None
    rows: int


def run_of(workspace: Workspace, name: str) -> Run | None:
    """The run of the workspace whose spec a bundle has; None where there is none any more."""
    path = workspace.bundles / name / "spec.yaml"
    if not path.is_file():
        return None
    text = path.read_bytes()
    runs = [run for run in runs_in(workspace) if run.spec_path.is_file()]
    return next((run for run in runs if run.spec_path.read_bytes() == text), None)


def speed_of(workspace: Workspace, name: str) -> Speed | None:
    """What was measured of a bundle; None where nothing was."""
    try:
        return Speed.model_validate_json((job_of(workspace, name).folder / "speed.json").read_bytes())
    except (OSError, ValidationError):
        return None


def measure(workspace: Workspace, name: str) -> None:
    """Measure a bundle, one at a time whoever asks, since two at once would measure each other.

    Raises:
        AssemblerError: its run is not here any more, or the bundle is damaged.
    """
    with _measuring:
        _measure(workspace, name)


def _measure(workspace: Workspace, name: str) -> None:
    """Let a bundle answer held-out rows of its run and note how fast it was, after one answer that is not counted."""
    from assembler.batches import split
    from assembler.bundle.runtime import Bundle
    from assembler.parity import samples

    run = run_of(workspace, name)
    if run is None:
        raise AssemblerError(f"{name}: the run it was made from is not here, so there are no rows to measure it on")
    graph = workspace.check(run.spec()).require()
    learned, held_out = split(graph)
    speaks = next(node for node in graph.objectives if "input_ids" in graph.parts[node].extras)  # a bundle has one
    asked = samples(graph, speaks, list((held_out or learned)[:MEASURED]))
    bundle = Bundle(workspace.named(workspace.bundles, name))
    bundle.generate_ids(asked[:1])
    firsts, rates = [], []
    for sample in asked:
        heard: list[float] = []
        began = time.perf_counter()
        bundle.generate_ids([sample], tell=lambda answers, heard=heard: heard.append(time.perf_counter()))  # type: ignore[misc]
        firsts.append(heard[0] - began)
        if len(heard) > 1:
            rates.append((len(heard) - 1) / (heard[-1] - heard[0]))
    rate = statistics.median(rates) if rates else None
    found = Speed(first_token=statistics.median(firsts), tokens_per_second=rate, rows=len(asked))
    folder = job_of(workspace, name).folder
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "speed.json", found.model_dump_json() + "\n")


class _Sink:
    """What a zip file is written to, piece by piece, so that it is never held whole."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.at = 0

    def write(self, data: bytes) -> int:
        self.pieces.append(bytes(data))
        self.at += len(data)
        return len(data)

    def tell(self) -> int:
        return self.at

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> bytes:
        """What was written since it was last asked."""
        data, self.pieces = b"".join(self.pieces), []
        return data


def packed(folder: Path) -> Iterator[bytes]:
    """The folder as a zip file in pieces; weights are stored as they are, since they hardly pack."""
    sink: Any = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            entry = zipfile.ZipInfo.from_file(path, f"{folder.name}/{path.relative_to(folder)}")
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield sink.taken()
    yield sink.taken()
