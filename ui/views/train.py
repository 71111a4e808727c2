"""The Train page: set up a run, start it, watch it learn."""

from __future__ import annotations

import streamlit as st

from ui import show, training
from ui.editing import REFUSED
from ui.views import _setup, _watch
from ui.workspace import Workspace

NEW = "New run"


def render() -> None:
    """Draw the page: a new run, or the one that the address names."""
    workspace = Workspace.current()
    names = [run.folder.name for run in training.runs_in(workspace)]
    title, chooser = st.columns([2, 1], vertical_alignment="bottom")
    title.title("Train", anchor=False)
    with chooser:
        chosen = _choose(names)
    if refused := st.session_state.pop(REFUSED, None):
        show.error(refused)
    if chosen == NEW:
        _setup.render(workspace)
    else:
        _watch.render(workspace, training.run_named(workspace, chosen), names)


def _choose(names: list[str]) -> str:
    """The run that is looked at: it stands in the address, so that a reload finds it again."""
    wanted = st.query_params.get("run") or st.session_state.get("run") or NEW
    options = [NEW, *names]
    st.session_state["run-chooser"] = wanted if wanted in options else NEW
    chosen = st.selectbox("Run", options, key="run-chooser", on_change=_chosen, label_visibility="collapsed")
    select(chosen)
    return chosen


def _chosen() -> None:
    select(st.session_state["run-chooser"])


def select(name: str) -> None:
    """Look at a run from now on."""
    st.session_state["run"] = name
    if name == NEW:
        st.query_params.pop("run", None)
    elif st.query_params.get("run") != name:
        st.query_params["run"] = name
