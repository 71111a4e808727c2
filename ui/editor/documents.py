"""The documents that the server holds for its tabs: what was accepted last, kept as a draft file after every gesture.

A tab sends its whole document with the version it has seen. One whose version is old, because another tab was faster,
is not taken but told, so that no tab's edits vanish.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assembler.check import check
from assembler.errors import AssemblerError
from assembler.files import write_text
from assembler.graph import Graph
from assembler.spec import read
from ui.document import EMPTY, EditorDocument, document_of, drawable, reads_back, refusals, spec_of, text_of
from ui.editor.messages import Checked, Request, Sent, problems_data
from ui.workspace import Workspace

UNTITLED = "untitled"
MOST_ANSWERS = 200


@dataclass
class Held:
    """One document: what Python accepted last, from which tab, and the file it came from."""

    id: str
    path: Path | None
    document: EditorDocument
    saved: str
    version: int = 0
    tab: str = "file"
    rev: int = 0
    checked: Checked | None = None
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """Who changed the document last, and the document."""
        return {"id": self.id, "version": self.version, "tab": self.tab, "rev": self.rev, "document": self.document}


class Documents:
    """All open documents of one server, by id."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.held: dict[str, Held] = {}
        self.lock = threading.RLock()

    def open(self, id: str, path: Path | None) -> Held:
        """The document `id`: as it is held, or its draft, or its file.

        Raises:
            AssemblerError: the file cannot be drawn at all.
        """
        with self.lock:
            if id not in self.held:
                self.held[id] = self._load(id, path)
            return self.held[id]

    def _load(self, id: str, path: Path | None) -> Held:
        saved = _read(path) if path else EMPTY
        document = document_of(saved)
        if document is None:
            lines = [problem.render(str(path)) for problem in refusals(saved, path or Path("spec.yaml"))]
            raise AssemblerError("\n".join(lines))
        held = Held(id, path, document, saved)
        draft = self._draft(id)
        if draft.is_file():
            kept = json.loads(draft.read_text(encoding="utf-8"))
            if document_of(kept["document"]["base"]) is not None:
                held.document, held.version, held.tab, held.rev = (
                    kept[k] for k in ("document", "version", "tab", "rev")
                )
        return held

    def _draft(self, id: str) -> Path:
        return self.workspace.drafts / (re.sub(r"[^\w.-]", "_", id) + ".json")

    def accept(self, sent: Sent) -> dict[str, Any] | None:
        """Take what a tab sent; the newer version and document where another tab was faster."""
        with self.lock:
            held = self.held[sent.id]
            mine = held.tab == sent.tab
            if mine and sent.rev <= held.rev:
                return None
            if not (mine or sent.force or sent.parent == held.version) and sent.held != held.document:
                return {"version": held.version, "document": held.document}
            if document_of(sent.document.base) is None:
                raise AssemblerError("the page sent a document whose text is no spec; reload the page")
            held.document, held.tab, held.rev, held.version = sent.held, sent.tab, sent.rev, held.version + 1
            self._keep(held)
            return None

    def _keep(self, held: Held) -> None:
        draft = self._draft(held.id)
        draft.parent.mkdir(parents=True, exist_ok=True)
        write_text(draft, json.dumps(held.as_data(), ensure_ascii=False))

    def check(self, held: Held) -> Checked:
        """The check of a document as it is now; made once for each version."""
        with self.lock:
            document, tab, rev, before = held.document, held.tab, held.rev, held.checked
        if before is not None and (before.tab, before.rev) == (tab, rev):
            return before
        spec, text = spec_of(document, held.path or self.workspace.specs / "untitled.yaml")
        outside = list(self.workspace.escapes(spec))
        if outside:
            graph, problems = Graph(spec), [*spec.problems, *outside]
        else:
            graph = check(spec)
            problems = graph.problems
            if spec.document is None:
                graph = check(drawable(spec))  # what the other sections have wrong is no reason to show no shapes
        held.checked = Checked(tab, rev, text, graph, problems)
        return held.checked

    def answer(self, held: Held, request: Request) -> Held:
        """Do what a request asks, once, and keep the answer; the document it is then, another after saving it anew."""
        if request.id in held.answers:
            return held
        now, found = held, {}
        try:
            if request.name == "read":
                found = self._read_text(held, request.text or "")
            elif request.name == "discard":
                found = self._discard(held)
            else:
                now = self._save(held, request.path)
                found = {"said": f"Saved {shown(now.path)}" if now.path else ""}
        except (AssemblerError, OSError) as error:
            found = {"error": str(error)}
        for each in {held.id: held, now.id: now}.values():
            each.answers[request.id] = {"id": request.id, **found}
            while len(each.answers) > MOST_ANSWERS:
                each.answers.pop(next(iter(each.answers)))
        return now

    def _read_text(self, held: Held, text: str) -> dict[str, Any]:
        document = document_of(text)
        if document is not None:
            return {"doc": document}
        return {"problems": problems_data(refusals(text, held.path or Path("spec.yaml")))}

    def _discard(self, held: Held) -> dict[str, Any]:
        text = _read(held.path) if held.path else EMPTY
        return {"doc": document_of(text)}

    def _save(self, held: Held, name: str | None) -> Held:
        if name is not None:
            path = self.workspace.named(self.workspace.specs, name.removesuffix(".yaml"), ".yaml")
            if path.exists() and path != held.path:
                raise AssemblerError(f"{path} exists already; choose another name")
        elif held.path is not None:
            path = self.workspace.writable(held.path)
        else:
            raise AssemblerError("this model has no file yet; save it under a name")
        text = text_of(held.document)
        if not reads_back(held.document, text):
            raise AssemblerError(f"{path}: the text does not read back as it was drawn; nothing was written")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        with self.lock:
            held.saved = text
            if path == held.path:
                return held
            from ui.opening import key_of

            now = Held(key_of(path), path, held.document, text, held.version, held.tab, held.rev, held.checked)
            self.held[now.id] = now
            self._keep(now)
            if held.path is None:
                self.held.pop(held.id, None)
                self._draft(held.id).unlink(missing_ok=True)
            return now

    def place(self, held: Held) -> dict[str, Any]:
        """Where the document belongs, whether it differs from its file, and the command that checks it."""
        path = shown(held.path) if held.path else None
        text = held.checked.yaml if held.checked else text_of(held.document)
        return {"path": path, "dirty": text != held.saved, "command": f"assembler validate {path or 'SPEC'}"}


def shown(path: Path) -> str:
    """A path as a person would type it here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _read(path: Path) -> str:
    """The text of a spec, through the same guard as everywhere.

    Raises:
        AssemblerError: it is no UTF-8 text, too long, or cannot be read.
    """
    spec = read(path)
    if spec.tree is None:
        raise AssemblerError("\n".join(problem.render(str(path)) for problem in spec.problems))
    return path.read_text(encoding="utf-8")
