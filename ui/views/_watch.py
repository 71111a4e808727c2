"""A run that learns or has learned: how far it is, its curves, its answers, its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from assembler.errors import AssemblerError
from assembler.runs import Run
from ui import show, training
from ui.editing import REFUSED
from ui.workspace import Workspace

EVERY = 1.5
"""Seconds between two looks at a run that is running."""
POINTS = 800
"""Of a curve, at most."""
SPREAD = 30
"""A metric that spans more than this is drawn on a logarithmic scale."""


def render(workspace: Workspace, run: Run, names: list[str]) -> None:
    """Draw the run; while it is running, again and again."""
    running = training.job_of(run).running
    now, actions = st.columns([5, 1], vertical_alignment="top")
    with now:
        _kept_up(_live, running)(run, running)
    with actions:
        _actions(run, running)
    _kept_up(_curves, running)(workspace, run, names)
    _kept_up(_answers, running)(run)
    with st.expander("Log", icon=":material/terminal:"):
        _kept_up(_log, running)(run)
    st.caption("The same from a terminal")
    show.command(training.again(run))


def _kept_up(draw: Callable[..., None], running: bool) -> Callable[..., None]:
    """A part of the page that draws itself again while the run goes on; once it is over, an ordinary part.

    A fragment that stays after its timer may miss the last redraw of the whole page.
    """
    return st.fragment(draw, run_every=EVERY) if running else draw


def _live(run: Run, was_running: bool) -> None:
    status = training.status(run)
    if was_running != (status.state == "running"):
        st.rerun()  # the whole page: how often it is drawn has changed
    with st.container(horizontal=True, vertical_alignment="center"):
        show.state(status.state)
        if status.stage:
            show.plain(f"stage {status.stage}")
    st.progress(status.step / status.steps if status.steps else 0.0)
    step, loss, left, _ = st.columns([2, 2, 2, 1])
    step.metric("Step", f"{status.step:,} of {status.steps:,}" if status.steps else "-")
    loss.metric("Loss", "-" if status.loss is None else f"{status.loss:.4f}")
    left.metric("Time left", "-" if status.state != "running" else show.duration(status.left))
    if status.state == "ended early" and status.word:
        with st.container(border=True):
            st.markdown(":orange[:material/warning:] It ended before its last step. The last thing it said:")
            show.plain(status.word)


def _actions(run: Run, running: bool) -> None:
    """What can be done now. In no fragment: a click while one is drawn for the last time would not be heard."""
    asked = f"stopping-{run.folder.name}"
    if running:
        about = "After this step, with a checkpoint; it can go on later"
        args = (run, asked)
        st.button("Stop training", icon=":material/stop:", help=about, on_click=_stop, args=args, width="stretch")
        if st.session_state.get(asked):
            st.button("Stop at once", type="tertiary", on_click=training.job_of(run).stop, args=(True,))
    elif training.status(run).state != "done":
        icon = ":material/play_arrow:"
        st.button("Resume", type="primary", icon=icon, on_click=_resume, args=(run, asked), width="stretch")


def _stop(run: Run, asked: str) -> None:
    training.job_of(run).stop()
    st.session_state[asked] = True


def _resume(run: Run, asked: str) -> None:
    st.session_state.pop(asked, None)
    try:
        training.go_on(run)
    except AssemblerError as error:
        st.session_state[REFUSED] = str(error)


def _curves(workspace: Workspace, run: Run, names: list[str]) -> None:
    """One metric over the steps, of this run and of those that it is compared with."""
    curves = {run.folder.name: training.curve(run)}
    known = sorted({key for row in curves[run.folder.name] for key in row} - {"stage", "step", "time", "loss"})
    with st.container(border=True):
        metric_column, compare_column = st.columns([1, 2])
        metric = metric_column.segmented_control("Plot", ["loss", *known], default="loss", key="metric") or "loss"
        others = [name for name in names if name != run.folder.name]
        compared = compare_column.multiselect("Compare with", others, key="compared", placeholder="Other runs")
        curves |= {name: training.curve(training.run_named(workspace, name)) for name in compared}
        _chart(curves, metric)


def _chart(curves: dict[str, list[dict[str, Any]]], metric: str) -> None:
    import altair
    import pandas

    points: list[dict[str, Any]] = []
    for name, rows in curves.items():
        found = [row for row in rows if row.get(metric) is not None]
        stride = max(1, len(found) // POINTS)
        kept = [*found[::stride], *(found[-1:] if stride > 1 else [])]
        points += [{"run": name, "step": row["step"], "value": row[metric], "stage": row["stage"]} for row in kept]
    if not points:
        st.caption("The first step is not made yet.")
        return
    values = [point["value"] for point in points]
    wide = min(values) > 0 and max(values) / min(values) > SPREAD
    domain = altair.Scale(type="log", domain=[min(values), max(values)]) if wide else altair.Scale(zero=False)
    powers = [10.0**k for k in range(-12, 13) if min(values) <= 10.0**k <= max(values)]
    scale = altair.Axis(values=powers, format="~g") if wide else altair.Axis(tickCount=5)
    chart = (
        altair.Chart(pandas.DataFrame(points))
        .mark_line(strokeWidth=1.75)
        .encode(
            x=altair.X("step:Q", title="step", axis=altair.Axis(tickMinStep=1, grid=False)),
            y=altair.Y("value:Q", title=metric, scale=domain, axis=scale),
            color=altair.Color("run:N", legend=altair.Legend(orient="top", title=None) if len(curves) > 1 else None),
            tooltip=["run:N", "stage:N", "step:Q", altair.Tooltip("value:Q", title=metric, format=".4g")],
        )
        .properties(height=280)
    )
    st.altair_chart(chart, width="stretch", alt=f"{metric} over the steps of {', '.join(curves)}")


def _answers(run: Run) -> None:
    """The rows that are watched: what is expected, what it says now, and what it said before."""
    rows, answers = training.looks(run)
    if not rows:
        return
    with st.container(border=True):
        when = f"after step {answers[-1]['step']:,}" if answers else "not answered yet"
        st.markdown(f"**Answers to rows it does not learn from**, {when}")
        for index, (column, row) in enumerate(zip(st.columns(len(rows)), rows, strict=True)):
            with column:
                _row(run, row, [(look["step"], look["answers"][index]) for look in answers])


def _row(run: Run, row: dict[str, Any], given: list[tuple[int, Any]]) -> None:
    folder = run.answers_path.parent
    for name in row["images"].values():
        path = (folder / name).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            st.image(str(path), width=96)
    for text in row["texts"].values():
        show.plain(text)
    st.caption("expected")
    show.plain(row["expected"])
    if given:
        st.caption("answer")
        show.plain(given[-1][1])
        with st.expander("Before"):
            for step, answer in reversed(given[:-1]):
                show.plain(f"{step:>6}  {answer}")


def _log(run: Run) -> None:
    st.code(training.job_of(run).said() or "It has said nothing yet.", language=None, height=320)
