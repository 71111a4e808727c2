"""The runs of a workspace: started, stopped, resumed, found again, and how far each is."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from assembler.errors import AssemblerError
from assembler.runs import Run, lines_of
from assembler.spec import Document, Spec, Stage
from ui.jobs import ASKED, Job
from ui.workspace import Workspace

State = Literal["running", "done", "stopped", "ended early"]
RECENT = 50
"""Steps that the time left is reckoned from."""
TAIL = 1 << 16
"""Bytes of the metrics' end that tell how far a run is."""


@dataclass(frozen=True)
class Status:
    """How far a run is: `left` in seconds where it can be told, `word` the last line of its log."""

    state: State
    stage: str
    step: int
    steps: int
    loss: float | None
    left: float | None
    word: str


def newest_of(workspace: Workspace, graph: dict[str, Any]) -> dict[str, Any] | None:
    """How far the newest run of a graph is: one of a spec of its name with the same parts under the same names.

    `learning` is what its stage of now trains.
    """
    own = _parts({**graph["nodes"], **graph["adapters"]})
    for run in runs_in(workspace):
        document, stages = _document(run), stages_of(run)
        if document is None or document.name != graph["name"] or not stages:
            continue
        if _parts({**document.nodes, **document.adapters}) == own:
            now = status(run)
            stage = next((stage for stage in stages if stage.name == now.stage), stages[0])
            found = {key: getattr(now, key) for key in ("state", "stage", "step", "steps", "loss")}
            return {"name": run.folder.name, **found, "learning": stage.train}
    return None


def job_of(run: Run) -> Job:
    """The process that trains a run, or that did."""
    return Job(run.folder, run.log_path.name)


def runs_in(workspace: Workspace) -> list[Run]:
    """Every run of the workspace, the youngest first; one that is only starting counts."""
    if not workspace.runs.is_dir():
        return []
    found = [Run(path) for path in workspace.runs.iterdir() if path.is_dir() and not path.name.startswith(".")]
    found = [run for run in found if run.spec_path.exists() or run.process_path.exists()]
    return sorted(found, key=_born, reverse=True)


def _born(run: Run) -> float:
    process = job_of(run).process
    return process.started if process else run.folder.stat().st_mtime


def run_named(workspace: Workspace, name: str) -> Run:
    """A run by its name.

    Raises:
        AssemblerError: there is none.
    """
    run = Run(workspace.named(workspace.runs, name))
    if not run.folder.is_dir():
        raise AssemblerError(f"there is no run {name} in {workspace.runs}; it may have been deleted")
    return run


def arguments(spec: Path, run: Run, watch: int, resume: bool = False) -> list[str]:
    """`assembler train` and what follows."""
    return [
        "train",
        str(spec),
        "--run",
        str(run.folder),
        *(["--watch", str(watch)] if watch else []),
        *(["--resume"] if resume else []),
    ]


def begin(workspace: Workspace, spec: Path, name: str, watch: int) -> Run:
    """Start a new run.

    Raises:
        AssemblerError: the name is taken or none, or the spec lies outside the workspace.
    """
    run = Run(workspace.named(workspace.runs, name))
    workspace.inside(spec)
    workspace.runs.mkdir(parents=True, exist_ok=True)
    try:
        run.folder.mkdir()
    except FileExistsError as error:
        raise AssemblerError(f"there is a run {name} already; choose another name") from error
    job_of(run).start(arguments(spec, run, watch))
    return run


def go_on(run: Run) -> None:
    """Resume a run that has stopped, or start it again when it had not begun."""
    job_of(run).start(again(run))


def again(run: Run) -> list[str]:
    """The arguments that a run goes on with."""
    process = job_of(run).process
    was = process.command if process else []
    watch = int(was[was.index("--watch") + 1]) if "--watch" in was else 0
    if run.spec_path.exists():
        return arguments(run.spec_path, run, watch, resume=True)
    if "train" not in was:
        raise AssemblerError(f"{run.folder.name} never began, and how it was started is not known; delete it")
    return arguments(Path(was[was.index("train") + 1]), run, watch)


def delete(run: Run) -> None:
    """Remove a run's folder, out of sight first.

    Raises:
        AssemblerError: it is running.
    """
    if job_of(run).running:
        raise AssemblerError(f"{run.folder.name} is running; stop it first")
    grave = run.folder.with_name(f".deleted-{run.folder.name}")
    shutil.rmtree(grave, ignore_errors=True)
    run.folder.rename(grave)
    shutil.rmtree(grave)


def spec_of(run: Run) -> Spec | None:
    """The run's spec, None while it has none."""
    return run.spec() if run.spec_path.exists() else None


def stages_of(run: Run) -> list[Stage]:
    """The stages of a run, none while it has no spec."""
    document = _document(run)
    return list(document.stages) if document else []


def _parts(section: dict[str, Any]) -> dict[str, Any]:
    return {name: raw.get("type") if isinstance(raw, dict) else None for name, raw in section.items()}


def _document(run: Run) -> Document | None:
    return _read(run.spec_path, run.spec_path.stat().st_mtime_ns) if run.spec_path.exists() else None


@lru_cache(maxsize=256)
def _read(path: Path, changed: int) -> Document | None:
    from assembler.spec import read

    return read(path).document


def status(run: Run) -> Status:
    """How far a run is, from its folder alone."""
    job, stages, rows = job_of(run), stages_of(run), lines_of(run.metrics_path, TAIL)
    before, total = starts(stages), sum(stage.steps for stage in stages)
    last = rows[-1] if rows else None
    step = before.get(last["stage"], 0) + last["step"] if last else 0
    done = bool(stages) and all(run.learned(stage.name).is_file() for stage in stages)
    word = job.last_word()
    state: State
    if job.running:
        state = "running"
    else:
        state = "done" if done else "stopped" if word.startswith(("stopped at step", ASKED)) else "ended early"
    left = _left(rows, total - step) if state == "running" else None
    return Status(state, last["stage"] if last else "", step, total, last["loss"] if last else None, left, word)


def starts(stages: list[Stage]) -> dict[str, int]:
    """How many steps were made before each stage."""
    found, before = {}, 0
    for stage in stages:
        found[stage.name] = before
        before += stage.steps
    return found


def _left(rows: list[dict[str, Any]], steps: int) -> float | None:
    """Seconds for the steps to come, at the pace of the last ones."""
    recent = [row["time"] for row in rows[-RECENT:] if "time" in row]
    if len(recent) < 2:
        return None
    paces = sorted(b - a for a, b in pairwise(recent))
    return steps * paces[len(paces) // 2]


def curve(run: Run) -> list[dict[str, Any]]:
    """The metrics with `step` counted over all stages."""
    before = starts(stages_of(run))
    return [{**row, "step": before.get(row["stage"], 0) + row["step"]} for row in lines_of(run.metrics_path)]


def looks(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(the rows that are watched, the answers to them over time)."""
    path = run.answers_path.with_name("rows.json")
    if not path.is_file():
        return [], []
    before = starts(stages_of(run))
    answers = [{**row, "step": before.get(row["stage"], 0) + row["step"]} for row in lines_of(run.answers_path)]
    return json.loads(path.read_text(encoding="utf-8")), answers


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
