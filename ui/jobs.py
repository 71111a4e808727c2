"""Work that outlives the page: each job is a process of its own, found again by the note in its folder.

A closed browser, another tab and a restarted server all see the same thing, because all there is to see is on disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from assembler.errors import AssemblerError
from assembler.processes import Process, noted
from ui.access import TOKEN

ASKED = "asked to stop"
TAIL = 20_000
"""Bytes of a log's end that are looked at."""


@dataclass(frozen=True)
class Job:
    """A command that works on a folder: who it is and what it says are kept there."""

    folder: Path
    log_name: str = "job.log"

    @property
    def log(self) -> Path:
        """What the command said, of every start one after the other."""
        return self.folder / self.log_name

    @property
    def note(self) -> Path:
        """Which process it is."""
        return self.folder / "process.json"

    @property
    def process(self) -> Process | None:
        """The process, alive or not; None when there never was one."""
        return noted(self.note)

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        process = self.process
        return process is not None and process.alive()

    def start(self, arguments: Sequence[str]) -> None:
        """Start `assembler` with these arguments in a process that nothing of the page takes with it.

        Raises:
            AssemblerError: it runs already.
        """
        if self.running:
            raise AssemblerError(f"{self.folder.name} is running already; stop it first")
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "assembler.cli", *arguments]
        environment = {**os.environ, "COLUMNS": "110", "PYTHONUNBUFFERED": "1"}
        environment.pop(TOKEN, None)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        Process.of(child.pid, command).write(self.note)
        threading.Thread(target=child.wait, daemon=True).start()  # so that it leaves no zombie while the server lives

    def stop(self, at_once: bool = False) -> None:
        """Ask it to end after its step, or end it at once."""
        process = self.process
        if process is None or not process.alive():
            return
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{ASKED}\n")
        try:
            psutil.Process(process.pid).send_signal(signal.SIGKILL if at_once else signal.SIGTERM)
        except psutil.NoSuchProcess:
            return

    def said(self) -> str:
        """The end of its log."""
        if not self.log.is_file():
            return ""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            text = file.read().decode("utf-8", "replace")
        return text.partition("\n")[2] if size > TAIL else text

    def last_word(self) -> str:
        """The last line of its log that is not empty: an error is a sentence, and stands there."""
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        return lines[-1] if lines else ""


def command_line(arguments: Sequence[str]) -> str:
    """The same command as a person would type it, from here."""
    import shlex

    return shlex.join(["assembler", *(_short(argument) for argument in arguments)])


def _short(argument: str) -> str:
    path = Path(argument)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_absolute() and path.is_relative_to(here) else argument
