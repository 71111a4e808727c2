"""The open spec on a page beside the canvas: the document that the editor holds, changed as one more of its tabs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import streamlit as st

from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.problems import Problem
from ui import opening
from ui.document import Graph as Plain
from ui.editor.documents import Documents, Held
from ui.editor.messages import Request, Sent, SentDocument
from ui.views.build import documents
from ui.workspace import Workspace

REFUSED = "refused"


@dataclass
class Opened:
    """The spec of this tab as it stands on the canvas, and what checking it found."""

    store: Documents
    held: Held
    version: int
    graph: Graph
    problems: list[Problem]

    @classmethod
    def read(cls) -> Opened:
        """The spec of this tab."""
        path, store = opening.opened(), documents()
        held = store.open(path)
        version, checked = held.version, store.check(held)
        return cls(store, held, version, checked.graph, checked.problems)

    @property
    def path(self) -> Path | None:
        """Its file; None while it has none."""
        return self.held.path

    @property
    def document(self) -> Plain:
        """The spec's sections as plain data."""
        return self.held.document["graph"]

    @property
    def name(self) -> str:
        """What the spec is called."""
        return str(self.document.get("name") or "model")

    @property
    def unsaved(self) -> bool:
        """Whether its file says something else, or there is none."""
        return bool(self.store.place(self.held)["dirty"])

    def keep(self, document: Plain) -> None:
        """Keep changed sections, with one version more, which the canvas follows.

        Raises:
            AssemblerError: another tab was faster.
        """
        if document == self.document:
            return
        changed = SentDocument(base=self.held.document["base"], graph=document)
        sent = Sent(tab=uuid4().hex, id=self.held.id, parent=self.version, rev=1, document=changed, requests=[])
        if self.store.accept(sent) is not None:
            raise AssemblerError("this spec was changed in another tab at the same time; nothing was changed here")

    def saved(self, workspace: Workspace) -> Path:
        """The file of the spec with everything that is on the page in it; a spec of the gallery, or without a file, is
        saved in the workspace first and is then the one of this tab.

        Raises:
            AssemblerError: it cannot be written.
        """
        if self.path is not None and not self.unsaved:
            return self.path
        name = None if self.path is not None and workspace.may_write(self.path) else free_name(workspace, self.name)
        request = Request(id=uuid4().hex, name="save", text=None, path=name)
        now = self.store.answer(self.held, request)
        error = now.answers[request.id].get("error")
        if error or now.path is None:
            raise AssemblerError(error or "the spec was not saved")
        opening.remember(now.path)
        return now.path


def change(edit: Callable[[Plain], Plain]) -> None:
    """Apply an edit to the spec of this tab; for callbacks, so that a refusal is told once the page is drawn."""
    try:
        opened = Opened.read()
        opened.keep(edit(opened.document))
    except AssemblerError as error:
        st.session_state[REFUSED] = str(error)


def free_name(workspace: Workspace, name: str) -> str:
    """A name for a spec file that is not taken."""
    stem = slug(name) or "model"
    names = (stem, *(f"{stem}-{i}" for i in range(2, 10_000)))
    return next(n for n in names if not (workspace.specs / f"{n}.yaml").exists())


def slug(name: str) -> str:
    """A name as a file can have it."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-")[:48]
