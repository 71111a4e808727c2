"""The documents that the server holds for its tabs: what was accepted last, kept as a draft after every gesture.

A tab sends its whole document with the version it has seen. One whose version is old, because another tab or page was
faster, is not taken but told, so that no edits vanish. A draft says which tab it came from, so that the tab is known
again after a restart. A file that changes on the disk is followed where the page has nothing unsaved.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assembler.check import check
from assembler.errors import AssemblerError
from assembler.files import write_text
from assembler.graph import Graph
from assembler.spec import read
from ui.document import EMPTY, EditorDocument, document_of, drawable, reads_back, refusals, spec_of, text_of
from ui.editor.messages import Checked, Request, Sent, problems_data
from ui.moving import moved
from ui.opening import key_of
from ui.workspace import Workspace

UNTITLED = "untitled"
MOST_ANSWERS = 200


@dataclass
class Held:
    """One document: what Python accepted last and from which tab, and what its file said when it was last looked at."""

    id: str
    path: Path | None
    document: EditorDocument
    saved: str
    seen: tuple[int, int] = (0, 0)
    version: int = 0
    tab: str = "file"
    rev: int = 0
    checked: Checked | None = None
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """Who changed the document last, and the document."""
        return {"id": self.id, "version": self.version, "tab": self.tab, "rev": self.rev, "document": self.document}

    def text(self) -> str:
        """The document as YAML."""
        known = self.checked
        return known.yaml if known and (known.tab, known.rev) == (self.tab, self.rev) else text_of(self.document)

    def changed(self, document: EditorDocument, tab: str, rev: int) -> None:
        """Hold another document."""
        self.document, self.tab, self.rev, self.version = document, tab, rev, self.version + 1


class Documents:
    """All open documents of one server, by id."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self.lock = threading.RLock()

    def open(self, path: Path | None) -> Held:
        """The document of a spec file (None: the one without a file): as it is held, or as its draft says, or its file.

        Raises:
            AssemblerError: the text cannot be drawn at all.
        """
        id = key_of(path) if path else UNTITLED
        with self.lock:
            held = self.held.get(id) or self._load(id, path)
            self._follow(held)
            self.held[id] = held
            return held

    def _follow(self, held: Held) -> None:
        """See whether the file has changed on the disk; where nothing is unsaved here the document changes with it."""
        seen = _stamp(held.path)
        if held.path is None or seen == held.seen:
            return
        text = _read(held.path)
        if text != held.saved and held.text() == held.saved:
            held.changed(_drawn(text, held.path), "file", 0)
        held.saved, held.seen = text, seen

    def _load(self, id: str, path: Path | None) -> Held:
        draft, text = self._draft(id), _read(path) if path else EMPTY
        now = int(time.time() * 1000)  # later than any version that a browser may remember
        if not draft.is_file():
            return Held(id, path, _drawn(text, path), text, version=now)
        kept = json.loads(draft.read_text(encoding="utf-8"))
        if kept["saved"] != text and text_of(kept["document"]) == kept["saved"]:
            return Held(id, path, _drawn(text, path), text, version=now)
        author = {key: kept[key] for key in ("version", "tab", "rev")}
        return Held(id, path, kept["document"], text, **author)

    def _draft(self, id: str) -> Path:
        return Workspace.current().drafts / (re.sub(r"[^\w.-]", "_", id) + ".json")

    def _keep(self, held: Held) -> None:
        draft = self._draft(held.id)
        draft.parent.mkdir(parents=True, exist_ok=True)
        write_text(draft, json.dumps({**held.as_data(), "saved": held.saved}, ensure_ascii=False))

    def accept(self, sent: Sent) -> dict[str, Any] | None:
        """Take what a tab sent; the newer version and document where another was faster."""
        with self.lock:
            held = self.held[sent.id]
            mine = held.tab == sent.tab
            if mine and sent.rev <= held.rev:
                return None
            if sent.held == held.document:
                held.tab, held.rev = sent.tab, sent.rev  # so that the check that goes back is known as this tab's
                return None
            if not (mine or sent.force or sent.parent == held.version):
                return {"version": held.version, "document": held.document}
            if document_of(sent.document.base) is None:
                raise AssemblerError("the page sent a document whose text is no spec; reload the page")
            held.changed(sent.held, sent.tab, sent.rev)
            self._keep(held)
            return None

    def check(self, held: Held) -> Checked:
        """The check of a document as it is now; made once for each version."""
        with self.lock:
            document, tab, rev, before = held.document, held.tab, held.rev, held.checked
        if before is not None and (before.tab, before.rev) == (tab, rev):
            return before
        workspace = Workspace.current()
        spec, text = spec_of(document, held.path or workspace.specs / f"{UNTITLED}.yaml")
        outside = list(workspace.escapes(spec))
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
                found = {"doc": document_of(_read(held.path) if held.path else EMPTY)}
            else:
                now = self._save(held, request.path)
                found = {"said": f"Saved {shown(now.path)}" if now.path else ""}
                if now.document != held.document:
                    found["doc"] = now.document
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

    def _save(self, held: Held, name: str | None) -> Held:
        workspace = Workspace.current()
        if name is not None:
            path = workspace.named(workspace.specs, name.removesuffix(".yaml"), ".yaml")
            if path.exists() and path != held.path:
                raise AssemblerError(f"{shown(path)} exists already; choose another name")
        elif held.path is not None:
            path = workspace.writable(held.path)
        else:
            raise AssemblerError("this model has no file yet; save it under a name")
        with self.lock:
            document = held.document
            if held.path is not None:
                document = {**document, "graph": moved(document["graph"], held.path.parent, path.parent)}
            text = text_of(document)
            if not reads_back(document, text):
                raise AssemblerError(
                    f"{shown(path)}: what was drawn does not read back from its text; nothing is written"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
            if path == held.path:
                held.saved, held.seen = text, _stamp(path)
                self._keep(held)
                return held
            now = replace(held, id=key_of(path), path=path, saved=text, seen=_stamp(path), answers={})
            if document != held.document:
                now.changed(document, held.tab, held.rev)
            self.held[now.id] = now
            self._keep(now)
            if held.path is None:
                self.held.pop(held.id, None)
                self._draft(held.id).unlink(missing_ok=True)
            return now

    def place(self, held: Held) -> dict[str, Any]:
        """Where the document belongs, whether it differs from its file, and the command that checks it."""
        path = shown(held.path) if held.path else None
        writable = held.path is not None and Workspace.current().may_write(held.path)
        command = f"assembler validate {path or 'SPEC'}"
        return {"path": path, "writable": writable, "dirty": held.text() != held.saved, "command": command}


def _stamp(path: Path | None) -> tuple[int, int]:
    """What changes when a file does; nothing for one that is not there, which reading it says."""
    try:
        found = path.stat() if path else None
    except OSError:
        return (-1, -1)
    return (found.st_mtime_ns, found.st_size) if found else (0, 0)


def shown(path: Path) -> str:
    """A path as a person would type it here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _drawn(text: str, path: Path | None) -> EditorDocument:
    document = document_of(text)
    if document is None:
        lines = [problem.render(str(path)) for problem in refusals(text, path or Path("spec.yaml"))]
        raise AssemblerError("\n".join(lines))
    return document


def _read(path: Path) -> str:
    """The text of a spec file, through the guard that every command reads specs with.

    Raises:
        AssemblerError: it is no UTF-8 text, too long, or cannot be read.
    """
    spec = read(path)
    if spec.tree is None:
        raise AssemblerError("\n".join(problem.render(str(path)) for problem in spec.problems))
    return path.read_text(encoding="utf-8")
