"""Costs of the open documents, counted beside the page so that no label waits for torch."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

NOTHING: dict[str, Any] = {
    "state": "counting", "why": "", "nodes": {}, "adapters": {}, "total": 0, "trainable": 0, "stages": {},
    "serving": None, "sites": {}, "prompts": {},
}  # fmt: skip
MOST_SECONDS = 300


class Costs:
    """The newest costs of each document. One worker counts for all; what was asked later overtakes."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._wanted: dict[str, tuple[str, str, Path]] = {}
        self._asked: dict[str, str] = {}
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        threading.Thread(target=self._work, daemon=True, name="costs").start()
        atexit.register(self._stop)

    def ask(self, id: str, key: str, text: str, path: Path) -> None:
        """Have the costs of a text counted, unless they are already, or are being."""
        with self._news:
            if self._asked.get(id) != key:
                self._asked[id] = key
                self._wanted[id] = (key, text, path)
                before = self.found.get(id, NOTHING)
                self.found[id] = {**before, "state": "counting", "key": key}
                self._news.notify()

    def _work(self) -> None:
        while True:
            with self._news:
                while not self._wanted:
                    self._news.wait()
                id, (key, text, path) = self._wanted.popitem()
            costs = self._count(text, path)
            with self._news:
                if self._asked.get(id) == key:
                    self.found[id] = {**NOTHING, **costs, "key": key}

    def _count(self, text: str, path: Path) -> dict[str, Any]:
        """One question to the worker, which is begun anew when it has ended or thinks for too long."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-m", "ui.worker"]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, encoding="utf-8")
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(MOST_SECONDS, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps({"text": text, "path": str(path)}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError as error:
            line = json.dumps({"state": "failed", "why": f"the counting process ended: {error}"})
        finally:
            watchdog.cancel()
        return json.loads(line or '{"state": "failed", "why": "the counting process ended without an answer"}')

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
