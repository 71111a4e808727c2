"""Weights in pages of 2 MiB: the processor looks up where they lie less often, and reads them faster."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

MAPS = Path("/proc/self/maps")
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LARGE = 2 << 20
COLLAPSE = 25
"""MADV_COLLAPSE of Linux 6.1, which Python's mmap does not name."""
Range = tuple[int, int]


@contextmanager
def large_pages(device: str = "cpu") -> Iterator[Thread | None]:
    """What is allocated meanwhile and stays is moved into large pages afterwards, by the thread that is given.

    It is advice: a system that has no such pages, or none left, keeps the small ones. None is given where the system is
    not Linux, its administrator wants no large pages, or the weights are on another device than a CPU.
    """
    if device != "cpu" or not (MAPS.exists() and SETTING.exists()) or "[never]" in SETTING.read_text():
        yield None
        return
    before: list[Range] = anonymous()
    mover = Thread(target=lambda: collapse(beyond(anonymous(), before)), daemon=True)
    yield mover
    mover.start()


def anonymous() -> list[Range]:
    """The first and the last address + 1 of each region of memory that belongs to no file, in order."""
    found = []
    for line in MAPS.read_text().splitlines():
        place, rights, _, _, inode, *_ = line.split()
        if rights.startswith("rw") and inode == "0":
            first, last = place.split("-")
            found.append((int(first, 16), int(last, 16)))
    return found


def beyond(after: list[Range], before: list[Range]) -> list[Range]:
    """What of the ranges `after` was in none of those `before`."""
    new = []
    for first, last in after:
        for start, end in before:
            if start < last and end > first:
                if start > first:
                    new.append((first, start))
                first = end
        if first < last:
            new.append((first, last))
    return new


def collapse(ranges: list[Range]) -> None:
    """Advise the system to move these into large pages; a small rest at either end is left."""
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for first, last in ranges:
        start, end = -(-first // LARGE) * LARGE, last // LARGE * LARGE
        if start < end:
            advise(start, end - start, COLLAPSE)
