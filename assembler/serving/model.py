"""The bundle that a server answers from, and the one that takes its place when its folder changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

from assembler.bundle.manifest import MANIFEST, Manifest
from assembler.bundle.runtime import Bundle
from assembler.errors import AssemblerError
from assembler.serving.engine import Engine
from assembler.serving.limits import Limits

log = logging.getLogger("assembler.serve")
LOOK = 2.0
"""Seconds between two looks at the manifest."""


class Model:
    """A bundle and its engine. A new bundle at the same place takes over once it is whole; requests that run finish.

    Raises:
        AssemblerError: the folder holds no whole bundle.
    """

    def __init__(self, folder: Path, limits: Limits, providers: list[str] | None = None) -> None:
        self.folder, self.limits, self.providers = folder, limits, providers
        self.closing = False
        self._stamp = self._seen()
        self._start(self._open())

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.engine.bundle.manifest

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.manifest.name

    @property
    def names(self) -> dict[str, str | None]:
        """What a request may ask for -> the adapter of the bundle that it means: none, or one of its LoRAs."""
        return {self.name: None, **{f"{self.name}:{adapter}": adapter for adapter in self.manifest.adapters}}

    def _open(self) -> Bundle:
        return Bundle(self.folder, self.providers)

    def _start(self, bundle: Bundle) -> None:
        limits = self.limits
        self.engine = Engine(bundle, limits.rows, limits.context, limits.waiting)
        self.loaded = int(time.time())

    def _seen(self) -> tuple[int, int] | None:
        """What tells one manifest from the next without reading it."""
        with contextlib.suppress(OSError):
            found = (self.folder / MANIFEST).stat()
            return found.st_mtime_ns, found.st_ino
        return None

    def reload(self) -> bool:
        """Take the bundle that lies there now; the old one stays if that is not whole. Whether it was taken."""
        try:
            bundle = self._open()
        except AssemblerError as error:
            log.error("reload refused", extra={"fields": {"error": str(error)}})
            return False
        old = self.engine
        self._start(bundle)
        threading.Thread(target=old.close, args=(self.limits.request_seconds,), daemon=True).start()
        log.info("reloaded", extra={"fields": {"model": self.name}})
        return True

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look for a new bundle while the block runs."""

        async def look() -> None:
            while True:
                await asyncio.sleep(LOOK)
                seen = self._seen()
                if seen is not None and seen != self._stamp:
                    self._stamp = seen
                    await asyncio.to_thread(self.reload)

        task = asyncio.create_task(look())
        try:
            yield
        finally:
            self.closing = True
            task.cancel()

    def close(self) -> None:
        """Finish what runs and stop."""
        self.closing = True
        self.engine.close()
