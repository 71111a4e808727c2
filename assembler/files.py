"""Files written aside and renamed into place, so that none is ever half there."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape as glob_escape
from pathlib import Path

from assembler.errors import AssemblerError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, none left of one's share of it, none for a file of that size."""


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Say that the disk of `path` is full when that is why the block fails.

    Raises:
        AssemblerError: it is full.
    """
    try:
        yield
    except OSError as error:
        short = error.errno is None and str(error).endswith("written")  # numpy's word for a write that came short
        if error.errno not in FULL and not short:
            raise
        raise AssemblerError(f"the disk of {path} is full; make room or choose another; nothing was written") from error


def clear_drafts(path: Path) -> None:
    """Remove what `aside` left behind for `path` in processes that were killed."""
    for draft in path.parent.glob(f".{glob_escape(path.name)}.*"):
        pid = draft.name.rpartition(".")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A draft beside `path`, file or folder: renamed to it when the block ends well, removed when it does not."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file aside and rename it into place."""
    with aside(path) as draft:
        draft.write_text(text, encoding="utf-8")


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
