"""A spec that is saved into another folder: what it names relative to its own still leads to the same files."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

from ui.document import Graph
from ui.workspace import paths_in

ELSEWHERE = ("hf:", "pypi:")
"""Sources that are no paths."""


def moved(graph: Graph, old: Path, new: Path) -> Graph:
    """The graph of a spec in the folder `old` as it reads in `new`; the very same one where nothing has to change."""
    if old.resolve() == new.resolve():
        return graph
    found: Any = deepcopy(graph)
    changed = False
    for keys, text, path in paths_in(graph):
        is_named = text.strip().startswith("file:") or keys[-1] == "path"
        if path.is_absolute() or text.startswith(ELSEWHERE) or not (is_named or (old / path).exists()):
            continue
        scheme = "file:" if text.strip().startswith("file:") else ""
        place = os.path.relpath((old / path).resolve(), new.resolve())
        _set(found, keys, scheme + Path(place).as_posix())
        changed = True
    return found if changed else graph


def _set(tree: Any, keys: tuple[str | int, ...], value: str) -> None:
    for key in keys[:-1]:
        tree = tree[key]
    tree[keys[-1]] = value
