"""The catalogue of parts that the palette and the inspector show, from the registry alone."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assembler.check import check
from assembler.part import AdapterPart, DatasetPart, Part
from assembler.registry import family, parts
from assembler.spec import Document, Spec
from assembler.values import AXES

PAPER = re.compile(r"\b\d{4}\.\d{4,5}\b")
MODALITIES = {
    "image": "vision", "video": "vision", "waveform": "sound", "points": "3D", "expression": "cells",
    "text": "language",
}  # fmt: skip
"""The kinds of values that tell which modality a part is for."""

NAMES = {
    ("input", "vision"): "photo", ("input", "sound"): "sound", ("input", "3D"): "cloud", ("input", "cells"): "cell",
    ("input", "language"): "question", ("encoder", "vision"): "eyes", ("encoder", "sound"): "ears",
    ("encoder", "3D"): "shape", ("encoder", "cells"): "genes", ("projector", ""): "bridge", ("backbone", ""): "talk",
    ("adapter", ""): "tune", ("head", ""): "head",
}  # fmt: skip
"""What a fresh node is called, by family and modality."""


@cache
def catalogue() -> dict[str, Any]:
    """`parts`: one entry a part; `axes`: the axes of each kind of value."""
    return {
        "parts": {name: _entry(name, cls) for name, cls in parts().items()},
        "axes": {kind: list(axes) for kind, axes in AXES.items()},
    }


def _entry(name: str, cls: type[Part]) -> dict[str, Any]:
    doc = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    whole = " ".join((cls.__doc__ or "").split())
    schema = cls.model_json_schema()
    ports, gives, start = _ports(cls), _gives(cls), _start(cls)
    kinds = {kind for accepted in ports.values() for kind in accepted} | set(gives)
    modalities = sorted({MODALITIES[kind] for kind in kinds if kind in MODALITIES})
    return {
        "type": name,
        "family": family(name),
        "trait": cls.trait if issubclass(cls, AdapterPart) else None,
        "role": "adapter" if issubclass(cls, AdapterPart) else "dataset" if issubclass(cls, DatasetPart) else "node",
        "name": _name(family(name), modalities, name),
        "summary": doc,
        "doc": whole,
        "papers": sorted(set(PAPER.findall(whole))),
        "modalities": modalities,
        "ports": {port: list(accepted) for port, accepted in ports.items()},
        "gives": gives,
        "grows": grows(cls),
        "start": start,
        "fields": [_field(key, item, schema) for key, item in schema.get("properties", {}).items()],
    }


def _name(kind: str, modalities: list[str], part: str) -> str:
    named = [NAMES[kind, modality] for modality in [*modalities, ""] if (kind, modality) in NAMES]
    return named[0] if named else part.partition(".")[2]


def grows(cls: type[Part]) -> str | None:
    """The text field that a new port is added to by writing `{name}` before it, for parts that have such a field."""
    if cls.port_fix is Part.port_fix:
        return None
    part = _sample(cls)
    change = part.port_fix("newport") if part is not None else None
    return change[0] if change else None


def _sample(cls: type[Part]) -> Part | None:
    for knobs in ({}, _example(cls)):
        try:
            return cls.model_validate(knobs)
        except ValidationError:
            continue
    return None


def _example(cls: type[Part]) -> dict[str, Any]:
    """The keys that the part has in its first example."""
    for spec, _ in cls.examples():
        for section in ("nodes", "adapters"):
            raw = spec.get(section, {}).get("part")
            if raw:
                return {key: value for key, value in raw.items() if key != "type"}
    return {}


def _start(cls: type[Part]) -> dict[str, Any]:
    """The keys a fresh node is given: none where the defaults do, else what the part's own example says is needed."""
    required = {key for key, item in cls.model_fields.items() if item.is_required()}
    known = _example(cls)
    chosen = {key: value for key, value in known.items() if key in required}
    try:
        cls.model_validate({"host": "host", **chosen} if issubclass(cls, AdapterPart) else chosen)
    except ValidationError:
        return {key: value for key, value in known.items() if key != "prompt"}
    return chosen


def _ports(cls: type[Part]) -> dict[str, tuple[str, ...]]:
    part = _sample(cls)
    return part.ports() if part is not None else cls.accepts


def _gives(cls: type[Part]) -> list[str]:
    """The kinds of value that the part puts out in its examples."""
    found: dict[str, None] = {}
    for spec, _ in cls.examples():
        raw = {"assembler": 1, **spec}
        value = check(Spec(Path("example.yaml"), Document.model_validate(raw), raw)).values.get("part")
        if value is not None:
            found[value.kind] = None
    return list(found)


def _field(key: str, item: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """One knob for the form: its control, choices, bounds, default and sentence."""
    options = [_resolved(option, schema) for option in item.get("anyOf", [item])]
    real = [option for option in options if option.get("type") != "null"]
    shape = real[0] if len(real) == 1 else {}
    choices = [value for option in real for value in option.get("enum", [option["const"]] if "const" in option else [])]
    return {
        "key": key,
        "control": "choice" if choices else shape.get("type") or "yaml",
        "choices": choices,
        "nullable": len(real) < len(options),
        "required": key in schema.get("required", []),
        "default": item.get("default"),
        "about": item.get("description", ""),
        "least": shape.get("minimum", shape.get("exclusiveMinimum")),
        "most": shape.get("maximum", shape.get("exclusiveMaximum")),
        "pattern": shape.get("pattern"),
    }


def _resolved(option: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = option.get("$ref")
    return schema.get("$defs", {}).get(reference.rpartition("/")[2], {}) if reference else option
