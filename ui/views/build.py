"""The Build page: the graph editor over the whole page."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ui.catalogue import catalogue
from ui.costs import Costs
from ui.document import meaning
from ui.editor.documents import Documents, Held
from ui.editor.messages import Sent
from ui.editor.mount import mount
from ui.opening import opened, remember
from ui.training import newest_of
from ui.workspace import Workspace

KEY = "editor"
FEED_SECONDS = 1.0
WHOLE_PAGE = """<style>
.stMainBlockContainer { padding: 3.6rem 0.8rem 0 0.8rem; max-width: none; }
.stMainBlockContainer .stVerticalBlock { gap: 0; }
[data-testid="stStatusWidget"] { display: none; }  /* the editor says itself when it waits; every gesture is a run */
</style>"""


@st.cache_resource(show_spinner=False)
def documents() -> Documents:
    """One store for all tabs of this server."""
    return Documents()


@st.cache_resource(show_spinner=False)
def costs() -> Costs:
    """One counting process for all tabs of this server."""
    return Costs()


def render() -> None:
    """Draw the page."""
    st.html(WHOLE_PAGE)
    mount("catalogue", catalogue(), key="catalogue")
    with st.container(key="editor-frame"):
        _editor()
    _feed()


@st.fragment
def _editor() -> None:
    """The editor with what Python holds and found. It belongs to a fragment: a gesture draws nothing else again."""
    store = documents()
    held = store.open(opened())
    st.session_state["editor.id"] = held.id
    checked = store.check(held)
    costs().ask(held.id, meaning(held.document), checked.yaml, checked.graph.spec.path)
    asked = st.session_state.get("editor.asked", [])
    data: dict[str, Any] = {
        "doc": held.as_data(),
        "place": store.place(held),
        "check": checked.as_data(),
        "taken": st.session_state.get("editor.taken"),
        "conflict": st.session_state.pop("editor.conflict", None),
        "answers": [held.answers[key] for key in asked if key in held.answers],
    }
    sent = _sent(mount("editor", data, KEY, _take))
    if sent is not None and sent.id == held.id and sent.tab == held.tab and sent.rev > held.rev:
        # A browser that was open before this session began: its document is newer than the draft.
        _take()
        st.rerun()


@st.fragment(run_every=FEED_SECONDS)
def _feed() -> None:
    """What comes by itself, for the document that the editor drew: its costs, how its run goes, what others did."""
    held = documents().held[st.session_state["editor.id"]]
    latest = {**held.as_data(), "document": held.document if held.tab != st.session_state.get("editor.tab") else None}
    run = newest_of(Workspace.current(), held.document["graph"])
    mount("feed", {"costs": costs().found.get(held.id), "doc": latest, "run": run}, key="feed")


def _sent(state: Any) -> Sent | None:
    raw = state.get("graph") if state else None
    return Sent.model_validate(raw) if raw else None


def _take() -> None:
    """Accept what the browser sent; the check goes back in the same run."""
    sent = _sent(st.session_state.get(KEY))
    store = documents()
    if sent is None or sent.id not in store.held:
        return
    st.session_state["editor.tab"] = sent.tab
    conflict = store.accept(sent)
    st.session_state["editor.conflict"] = conflict
    if conflict is None:
        st.session_state["editor.taken"] = {"tab": sent.tab, "rev": sent.rev}
    st.session_state["editor.asked"] = [request.id for request in sent.requests]
    held: Held = store.held[sent.id]
    for request in sent.requests:
        held = store.answer(held, request)
    if held.id != sent.id:
        remember(held.path)
