"""`did you mean`: the nearest known name to one that is not known."""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz import process


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence tail: the nearest name, or the known ones when none is near.

    >>> nearest("wieghts", ["weights", "freeze"])
    '; did you mean weights?'
    """
    names = list(known)
    found = process.extractOne(name[:100], names, score_cutoff=60)
    if found:
        return f"; did you mean {found[0]}?"
    return f"; known: {', '.join(sorted(names)[:20])}" if names else ""
