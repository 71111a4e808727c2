"""The text of a spec as it stands on the page: kept on disk after every change, in the spec's own file when saved.

The pages hand a spec to each other through its draft, so what was drawn and not saved yet can be trained, and what was
set on the Train page is there on the canvas. Two tabs on one spec do not overwrite each other: whoever keeps a text
says which one it was made from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from assembler.errors import AssemblerError
from assembler.files import write_text
from assembler.spec import MAX_BYTES
from ui.workspace import Workspace

EMPTY = "assembler: 1\nname: model\nnodes: {}\nedges: []\n"


class DraftMoved(AssemblerError):
    """Another tab has changed the spec since this one last saw it."""


@dataclass(frozen=True)
class Draft:
    """A text, its `mark` for whoever changes it, and whether the spec's own file differs from it."""

    text: str
    mark: str
    unsaved: bool


def draft_path(path: Path | None) -> Path:
    """Where the draft of a spec is kept; None is the spec that has no file yet."""
    drafts = Workspace.current().drafts
    if path is None:
        return drafts / "untitled.yaml"
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return drafts / f"{path.stem}-{digest}.yaml"


def read_draft(path: Path | None) -> Draft:
    """The spec's text as it stands: the draft where there is one, else the file's, else an empty spec.

    Raises:
        AssemblerError: the file is not UTF-8, too large, or outside the workspace.
    """
    draft, saved = draft_path(path), EMPTY if path is None else file_text(path)
    text = file_text(draft) if draft.is_file() else saved
    return Draft(text, mark_of(text), text != saved)


def keep(path: Path | None, text: str, seen: str) -> Draft:
    """Keep a text that was made from the one marked `seen`.

    Raises:
        DraftMoved: another tab has kept something else meanwhile; nothing is overwritten.
    """
    draft = draft_path(path)
    draft.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(draft.with_suffix(".lock")):
        now = read_draft(path)
        if now.mark not in (seen, mark_of(text)):
            raise DraftMoved("this spec was changed in another tab; open that change, or save yours under another name")
        saved = EMPTY if path is None else file_text(path)
        if text == saved:
            draft.unlink(missing_ok=True)
        else:
            write_text(draft, text)
    return Draft(text, mark_of(text), text != saved)


def save(path: Path, text: str) -> None:
    """Write a text to its spec's file and drop the draft.

    Raises:
        AssemblerError: the file may not be written.
    """
    target = Workspace.current().writable(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    draft_path(path).unlink(missing_ok=True)


def mark_of(text: str) -> str:
    """What tells one text from another."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_text(path: Path) -> str:
    """The text of a file of the workspace.

    Raises:
        AssemblerError: it is not UTF-8, too large, not there, or outside.
    """
    real = Workspace.current().inside(path)
    try:
        if real.stat().st_size > MAX_BYTES:
            raise AssemblerError(f"{path} has more than {MAX_BYTES:,} bytes; it is no spec")
        return real.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise AssemblerError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise AssemblerError(f"{path} cannot be read: {error.strerror}; check the path") from error
