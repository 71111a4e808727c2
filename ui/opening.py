"""Which spec is open in this tab: its key stands in the address, so that a reload opens the same one and two tabs may
differ."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from assembler.errors import AssemblerError
from ui.workspace import GALLERY, Workspace

KEY = "spec"


def key_of(path: Path) -> str:
    """How the address names a spec: `gallery/NAME.yaml`, or its path from the workspace or from its own folder."""
    real, workspace = path.resolve(), Workspace.current()
    if real.is_relative_to(GALLERY):
        return f"gallery/{real.relative_to(GALLERY)}"
    return str(real.relative_to(workspace.root)) if real.is_relative_to(workspace.root) else real.name


def path_of(key: str) -> Path:
    """The spec that the address names.

    Raises:
        AssemblerError: it is none, or lies outside the workspace.
    """
    workspace = Workspace.current()
    places = [workspace.root / key, GALLERY.parent / key]
    places += [workspace.opened.parent / key] if workspace.opened else []
    for place in places:
        real = place.resolve()
        if real.suffix in (".yaml", ".yml") and real.is_file() and any(real.is_relative_to(x) for x in workspace.roots):
            return real
    raise AssemblerError(f"{key}: there is no such spec in the workspace {workspace.root}; choose one in the gallery")


def opened() -> Path | None:
    """The spec that is open in this tab; None is an empty canvas."""
    key = st.query_params.get(KEY) or st.session_state.get("opened")
    if key is None:
        started_with = Workspace.current().opened
        key = key_of(started_with) if started_with else ""
    path = path_of(key) if key else None
    remember(path)
    return path


def remember(path: Path | None) -> None:
    """Make `path` the spec of this tab."""
    key = key_of(path) if path else ""
    st.session_state["opened"] = key
    if not key:
        st.query_params.pop(KEY, None)
    elif st.query_params.get(KEY) != key:
        st.query_params[KEY] = key
