"""Memory in large pages."""

import ctypes
import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assembler.bundle import pages
from assembler.bundle.pages import LARGE, anonymous, beyond, collapse, large_pages

ranges = st.lists(st.integers(0, 60), max_size=12, unique=True).map(
    lambda ends: [tuple(pair) for pair in zip(*[iter(sorted(ends)[: len(ends) // 2 * 2])] * 2, strict=True)]
)


def places(found: list[tuple[int, int]]) -> set[int]:
    return {x for first, last in found for x in range(first, last)}


@given(ranges, ranges)
def test_what_lies_beyond_is_what_was_not_there_before(after, before):
    found = beyond(after, before)
    assert places(found) == places(after) - places(before)
    assert found == sorted(found) and all(first < last for first, last in found)


def large(first: int) -> int:
    """Bytes in large pages of the region that holds an address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        start, dash, rest = line.split()[0].partition("-")
        if dash:
            here = int(start, 16) <= first < int(rest, 16)
        elif here and line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return 0


def touched(size: int) -> tuple[mmap.mmap, int]:
    """Memory of its own in small pages, and where it begins."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory.write(b"\1" * size)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


@pytest.fixture
def able():
    """Skips where the system moves nothing into large pages."""
    memory, place = touched(4 * LARGE)
    collapse([(place, place + len(memory))])
    if not large(place):
        pytest.skip("this Linux moves nothing into large pages when it is told to")


def test_what_is_allocated_meanwhile_moves_and_keeps_what_it_says(able):
    with large_pages() as mover:
        memory, place = touched(16 * LARGE)
        assert large(place) == 0
    mover.join()
    assert large(place) >= 15 * LARGE
    assert memory[:] == b"\1" * len(memory)


def test_what_was_there_before_stays_as_it_is(able):
    memory, place = touched(16 * LARGE)
    with large_pages() as mover:
        pass
    mover.join()
    assert large(place) == 0 and memory[0] == 1


@pytest.mark.parametrize("setting", ["always madvise [never]", None])
def test_nothing_moves_where_the_administrator_wants_none_or_the_system_is_another(setting, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "SETTING", tmp_path / "enabled")
    if setting:
        pages.SETTING.write_text(setting)
    with large_pages() as mover:
        assert mover is None


def test_nothing_moves_for_weights_that_are_on_a_gpu(able):
    with large_pages("cuda") as mover:
        assert mover is None


def test_regions_of_files_and_those_that_nothing_is_written_to_are_none():
    read = mmap.mmap(-1, LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    with Path(__file__).open("rb") as file:
        copied = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    written, _ = touched(LARGE)
    begins = [np.frombuffer(memory, np.uint8).ctypes.data for memory in (read, copied, written)]
    found = anonymous()
    assert found == sorted(found) and all(first < last for first, last in found)
    assert [any(first <= begin < last for first, last in found) for begin in begins] == [False, False, True]
