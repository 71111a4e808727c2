"""What a row of `benchmarks.senses` is.

A row is a file `benchmarks/_sense_<row>.py`, found by its name. It holds

    ROW = Row(spec="kicad", sense="3D", asked="...", met=lambda score, base: score >= base)

    def baseline(spec: Path) -> Score: ...            # computed anew on the same split
    def extra(run: Path, bundle: Path) -> list[Score]: ...   # optional: more figures, printed beside it

`spec` names a file of exports/gallery. `baseline` reads the spec's data by `rows_of` and lets `judged` score its
answers, so that both are measured by one metric with one bootstrap. A `Score` with `met=False` fails the row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from rich.console import Console

from assembler.errors import AssemblerError
from assembler.evaluate import answer_kind, evaluate
from assembler.fetching import fetched_graph
from assembler.graph import Graph
from assembler.rows import Rows
from assembler.runs import Run, lines_of
from assembler.spec import Spec, read

MINUTES = 20.0
"""How long a training may take, on 2 cores."""


class Row(NamedTuple):
    """One sense: its gallery spec and what is asked of it.

    Attributes:
        spec: a file of exports/gallery, without its suffix.
        sense: what it perceives, in a word or two.
        asked: what must hold, in words.
        met: whether it holds, of the model's score and the baseline's; None where `extra` says what is asked for.
    """

    spec: str
    sense: str
    asked: str = ""
    met: Callable[[float, float], bool] | None = None


class Score(NamedTuple):
    """A figure with its 95 % bootstrap interval; `met` is None where nothing is asked of it."""

    name: str
    score: float
    interval: tuple[float, float]
    met: bool | None = None


def rows_of(spec: Path) -> tuple[Graph, Rows, Rows]:
    """The graph of a spec with its weights and data on this computer, the rows to learn from and those held out."""
    from assembler.batches import split

    graph = fetched_graph(read(spec))
    return (graph, *split(graph))


def text_node(graph: Graph) -> str:
    """The first node that answers in words, an LLM before a head.

    Raises:
        AssemblerError: none does.
    """
    for node in sorted(graph.objectives, key=lambda node: "input_ids" not in graph.parts[node].extras):
        if getattr(graph.parts[node], "answers", None) and answer_kind(graph, node) == "text":
            return node
    raise AssemblerError(f"{graph.spec.path}: no node answers in words")


def judged(name: str, graph: Graph, given: Sequence[Any], learned: Rows, held_out: Rows) -> Score:
    """The score of these answers to the held-out rows, by the first metric of the spec's node that answers in words."""
    report = evaluate(graph, given, learned, held_out, text_node(graph))
    return scored(name, report)


def scored(name: str, report: dict[str, Any]) -> Score:
    """The first metric of a report of `evaluate`."""
    low, high = report["intervals"][report["metric"]]
    return Score(name, report[report["metric"]], (low, high))


def trained(spec: Spec, run: Path, say: Console) -> None:
    """Train the spec into a new run; the values of its frozen nodes are none that an earlier run has left."""
    from assembler.train import train

    name = f"{spec.path.stem}, fold {spec.tree['data'].get('fold', 0)}"
    say.print(f"{name}: training in {run}")
    start = time.monotonic()
    with patch("assembler.features.features_folder", return_value=run.parent / "features"):
        train(spec, run, console=say)
    say.print(f"{name}: trained in {(time.monotonic() - start) / 60:.1f} minutes")


def minutes_of(run: Path) -> float:
    """From the run's beginning, its weights being here, to its last step; pauses of a run that was resumed count."""
    rows = lines_of(Run(run).metrics_path)
    if not rows:
        raise AssemblerError(f"{run} has no metrics; train it first")
    return (rows[-1]["time"] - (run / "run.json").stat().st_mtime) / 60
