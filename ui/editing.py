"""The open spec on a page that changes it: read from its draft, changed as plain data, kept as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.spec import parse, plain
from ui import drafts, opening
from ui.drafts import Draft
from ui.workspace import GALLERY, Workspace
from ui.yaml_text import patch, same

Plain = dict[str, Any]


@dataclass
class Opened:
    """The spec of this tab as it stands: its file (None: not saved yet), its draft, and what checking it found."""

    path: Path | None
    draft: Draft
    graph: Graph

    @classmethod
    def read(cls) -> Opened:
        """The spec of this tab."""
        path = opening.opened()
        draft = drafts.read_draft(path)
        workspace = Workspace.current()
        graph = workspace.check(parse(draft.text, path or workspace.specs / "untitled.yaml"))
        return cls(path, draft, graph)

    @property
    def document(self) -> Plain | None:
        """The spec as plain data; None when the text is too broken to be changed anywhere but in the text."""
        return plain(self.graph.spec.tree) if self.graph.spec.document is not None else None

    @property
    def name(self) -> str:
        """What the spec is called."""
        document = self.graph.spec.document
        return document.name if document else "untitled"

    def keep(self, document: Plain) -> None:
        """Keep a changed document; the text keeps its comments."""
        was = plain(self.graph.spec.tree)
        if not same(document, was):
            drafts.keep(self.path, patch(self.draft.text, was, document), self.draft.mark)

    def saved(self) -> Path:
        """The file of the spec with everything that is on the page in it; a spec of the gallery, or without a file, is
        saved in the workspace first and is then the one of this tab."""
        if self.path is not None and not self.draft.unsaved:
            return self.path
        workspace = Workspace.current()
        if self.path is not None and not (self.path.is_relative_to(GALLERY)):
            drafts.save(self.path, self.draft.text)
            return self.path
        target = _free(workspace, self.name)
        drafts.save(target, self.draft.text)
        drafts.draft_path(self.path).unlink(missing_ok=True)
        opening.remember(target)
        return target


def change(edit: Callable[[Plain], Plain]) -> None:
    """Apply an edit to the spec of this tab; for callbacks, so that a refusal is told once the page is drawn."""
    opened = Opened.read()
    document = opened.document
    if document is None:
        return
    try:
        opened.keep(edit(document))
    except AssemblerError as error:
        st.session_state["refused"] = str(error)


def _free(workspace: Workspace, name: str) -> Path:
    stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-") or "model"
    names = (stem, *(f"{stem}-{i}" for i in range(2, 10_000)))
    return next(path for path in (workspace.specs / f"{n}.yaml" for n in names) if not path.exists())
