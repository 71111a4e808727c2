"""The Runs page: what there is, how two specs differ, and what can go."""

from __future__ import annotations

import difflib

import streamlit as st

from assembler.runs import Run
from ui import show, training
from ui.workspace import Workspace

WIDTHS = [3, 2, 2, 1.5, 1.5, 2.4]


def render() -> None:
    """Draw the page."""
    workspace = Workspace.current()
    st.title("Runs", anchor=False)
    runs = training.runs_in(workspace)
    if not runs:
        show.nothing_yet("There are no runs yet. Start one on the Train page.")
        return
    with st.container(border=True):
        for column, title in zip(st.columns(WIDTHS), ("Run", "State", "Steps", "Loss", "Size", ""), strict=True):
            column.caption(title)
        for run in runs:
            _row(run)
    if len(runs) > 1:
        _difference(runs)


def _row(run: Run) -> None:
    status, name = training.status(run), run.folder.name
    columns = st.columns(WIDTHS, vertical_alignment="center")
    with columns[0]:
        show.plain(name)
    with columns[1]:
        show.state(status.state)
    with columns[2]:
        show.plain(f"{status.step:,} of {status.steps:,}" if status.steps else None)
    with columns[3]:
        show.plain(None if status.loss is None else f"{status.loss:.4f}")
    with columns[4]:
        show.plain(show.size(training.size_of(run.folder)))
    with columns[5], st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Open", key=f"open-{name}", icon=":material/monitoring:", help="Its curves, answers and log"):
            from ui.views.train import select

            select(name)
            st.switch_page(show.page("train"), query_params={"run": name})
        busy = status.state == "running"
        if st.button(
            "Delete", key=f"delete-{name}", type="tertiary", disabled=busy, help="Stop it first" if busy else None
        ):
            _confirm(name)


@st.dialog("Delete this run?")
def _confirm(name: str) -> None:
    run = training.run_named(Workspace.current(), name)
    show.plain(f"{name}, {show.size(training.size_of(run.folder))}")
    st.markdown("What it learned, its metrics and its log are removed from the disk. Bundles made from it stay.")
    if st.button("Delete", type="primary", key="confirm-delete"):
        training.delete(run)
        if st.session_state.get("run") == name:
            del st.session_state["run"]
        st.rerun()


def _difference(runs: list[Run]) -> None:
    """The specs of two runs, line by line."""
    st.subheader("What differs between two specs", anchor=False)
    names = [run.folder.name for run in runs if run.spec_path.exists()]
    if len(names) < 2:
        st.caption("Two runs must have begun.")
        return
    left, right = st.columns(2)
    first = left.selectbox("From", names, index=1)
    second = right.selectbox("To", names, index=0)
    st.code(difference(runs, first, second) or "They are the same.", language="diff")


def difference(runs: list[Run], first: str, second: str) -> str:
    """A unified diff of the specs of two runs by name."""
    texts = {
        run.folder.name: run.spec_path.read_text(encoding="utf-8").splitlines()
        for run in runs
        if run.spec_path.exists()
    }
    return "\n".join(difflib.unified_diff(texts[first], texts[second], first, second, lineterm=""))
