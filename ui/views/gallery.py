"""The Gallery page: ready specs and one's own, each with a picture and a sentence, to be opened or copied."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from assembler.errors import AssemblerError
from assembler.files import write_text
from ui import opening, pictures, show
from ui.document import text_of
from ui.moving import moved
from ui.views.build import documents
from ui.workspace import GALLERY, Workspace

COLUMNS = 3
MOST = 4000
"""Letters of a spec that its sentence is looked for in."""


def render() -> None:
    """Draw the page."""
    workspace = Workspace.current()
    head, new = st.columns([4, 1], vertical_alignment="bottom")
    head.title("Gallery", anchor=False)
    if new.button("Empty canvas", icon=":material/add:", width="stretch"):
        opening.remember(None)
        st.switch_page(show.page("build"))
    own = workspace.list_specs()
    if own:
        st.subheader("Yours", anchor=False)
        _cards(own)
        st.subheader("Ready to use", anchor=False)
    _cards(ready())


def ready() -> list[Path]:
    """The specs that come with the assembler."""
    return sorted(GALLERY.glob("*.yaml"))


def _cards(paths: list[Path]) -> None:
    for start in range(0, len(paths), COLUMNS):
        for column, path in zip(st.columns(COLUMNS), paths[start : start + COLUMNS], strict=False):
            with column, st.container(border=True, height="stretch", key=f"card-{opening.key_of(path)}"):
                _card(path)


def _card(path: Path) -> None:
    key = opening.key_of(path)
    image = pictures.picture(path, path.stat().st_mtime_ns)
    if image:
        st.image(image, width="stretch", alt=f"The graph of {path.stem}")
    st.markdown(f"**{show.escaped(path.stem)}**")
    st.caption(show.escaped(sentence(path)) or "No description: the comment that a spec begins with would stand here.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if st.button("Open", key=f"open-{key}", type="primary", icon=":material/account_tree:"):
            opening.remember(path)
            st.switch_page(show.page("build"), query_params={opening.KEY: key})
        with st.popover("Copy"):
            name = st.text_input("Name of the copy", value=f"{path.stem}-2", key=f"copy-{key}")
            if st.button("Save the copy", key=f"save-copy-{key}"):
                copy(path, name)
                st.rerun()


def sentence(path: Path) -> str:
    """The first sentence of the comment that a spec begins with."""
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace")[:MOST].splitlines():
        text = line.removeprefix("#").strip() if line.startswith("#") else ""
        if not text:
            break
        lines.append(text)
    return re.split(r"(?<=[.!?])\s", " ".join(lines))[0]


def copy(path: Path, name: str) -> Path:
    """Save what a spec says on the page now under another name; its paths lead where they led.

    Raises:
        AssemblerError: the name is none, or taken.
    """
    workspace = Workspace.current()
    target = workspace.named(workspace.specs, name, ".yaml")
    if target.exists():
        raise AssemblerError(f"there is a spec {name} already; choose another name")
    document = documents().open(path).document
    graph = moved(document["graph"], path.parent, target.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text_of({**document, "graph": graph}))
    return target
