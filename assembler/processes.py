"""Which process works on a folder: a small file that tells it apart from a later one that was given the same number."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from assembler.files import write_text

TOLERANCE = 2.0
"""Seconds: the clock that a start is reckoned by may be set between two looks."""


class Process(BaseModel):
    """A process: its number, when it started (seconds since 1970), and its command line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    started: float
    command: list[str]

    @classmethod
    def of(cls, pid: int, command: list[str]) -> Process:
        """The process that has this number now."""
        return cls(pid=pid, started=psutil.Process(pid).create_time(), command=command)

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls.of(os.getpid(), [sys.executable, *sys.argv])

    def write(self, path: Path) -> None:
        """Note it in a file."""
        write_text(path, self.model_dump_json() + "\n")

    def alive(self) -> bool:
        """Whether it still works; one that has ended and waits for its parent to look does not."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < TOLERANCE
            return same and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def noted(path: Path) -> Process | None:
    """The process that a file notes; None where there is none, or it is damaged."""
    try:
        return Process.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
