"""Parts are found by existing: every module under `components` and every `assembler.parts` entry point.

A module whose name starts with an underscore belongs to a part and is not looked into: that is where torch may be
imported at the top.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import TypeVar

from assembler.errors import AssemblerError
from assembler.part import Part

NAME = re.compile(r"[a-z][a-z0-9]*\.[a-z][a-z0-9_]*")
_parts: dict[str, type[Part]] = {}
P = TypeVar("P", bound=type[Part])


def register(cls: P) -> P:
    """Class decorator that makes a part known under `cls.type`.

    Raises:
        AssemblerError: the name is not `family.name`, is taken by another class, or the docstring is missing.
    """
    name, where = cls.type, f"{cls.__module__}.{cls.__qualname__}"
    if not NAME.fullmatch(name):
        raise AssemblerError(f"{where}: part name {name!r} is not of the form family.name (a-z, 0-9, _)")
    if not (cls.__dict__.get("__doc__") or "").strip():
        raise AssemblerError(f"{where}: part {name} has no docstring; say what it computes, its shapes and its source")
    known = _parts.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise AssemblerError(f"{where}: part name {name} is already taken by {known.__module__}.{known.__qualname__}")
    _parts[name] = cls
    return cls


def _scan(package: ModuleType) -> None:
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not info.name.rpartition(".")[2].startswith("_"):
            importlib.import_module(info.name)


@cache
def _load() -> None:
    _scan(importlib.import_module("components"))
    for entry in entry_points(group="assembler.parts"):
        module = importlib.import_module(entry.module)
        if hasattr(module, "__path__"):
            _scan(module)


def parts() -> dict[str, type[Part]]:
    """Every known part by name, sorted."""
    _load()
    return dict(sorted(_parts.items()))


def family(name: str) -> str:
    """The part before the dot: `encoder` of `encoder.timm`."""
    return name.split(".", 1)[0]
