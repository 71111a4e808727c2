"""The Build page: the graph editor over the whole page."""

from __future__ import annotations

from typing import Any

import streamlit as st

from ui.catalogue import catalogue
from ui.editor.documents import UNTITLED, Documents, Held
from ui.editor.messages import Sent
from ui.editor.mount import mount
from ui.opening import key_of, opened, remember
from ui.workspace import Workspace

KEY = "editor"
WHOLE_PAGE = """<style>
.stMainBlockContainer { padding: 3.6rem 0.8rem 0 0.8rem; max-width: none; }
.stMainBlockContainer .stVerticalBlock { gap: 0; }
</style>"""
FEED_SECONDS = 1.0


@st.cache_resource(show_spinner=False)
def documents() -> Documents:
    """One store for all tabs of this server."""
    return Documents(Workspace.current())


def render() -> None:
    """Draw the page."""
    path = opened()
    held = documents().open(key_of(path) if path else UNTITLED, path)
    st.html(WHOLE_PAGE)
    mount("catalogue", catalogue(), key="catalogue")
    with st.container(key="editor-frame"):
        _editor(held.id)


@st.fragment
def _editor(id: str) -> None:
    id = st.session_state.get("editor.id", id) if id == st.session_state.get("editor.before") else id
    store = documents()
    held = store.held[id]
    checked = store.check(held)
    asked = st.session_state.get("editor.asked", [])
    data: dict[str, Any] = {
        "doc": held.as_data(),
        "place": store.place(held),
        "check": checked.as_data(),
        "conflict": st.session_state.pop("editor.conflict", None),
        "answers": [held.answers[key] for key in asked if key in held.answers],
    }
    result = mount("editor", data, KEY, _take)
    sent = _sent(result)
    if sent is not None and sent.id == id and sent.tab == held.tab and sent.rev > held.rev:
        # A browser that was open before this session began: its document is newer than the draft.
        _take()
        st.rerun(scope="fragment")


def _sent(state: Any) -> Sent | None:
    raw = state.get("graph") if state else None
    return Sent.model_validate(raw) if raw else None


def _take() -> None:
    """Accept what the browser sent; the check goes back in the same run."""
    sent = _sent(st.session_state.get(KEY))
    store = documents()
    if sent is None or sent.id not in store.held:
        return
    st.session_state["editor.conflict"] = store.accept(sent)
    held: Held = store.held[sent.id]
    st.session_state["editor.asked"] = [request.id for request in sent.requests]
    for request in sent.requests:
        held = store.answer(held, request)
    if held.id != sent.id:
        st.session_state["editor.before"], st.session_state["editor.id"] = sent.id, held.id
        remember(held.path)
