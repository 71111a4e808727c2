"""Stages as a table: which part learns in which stage, and how. Pure functions on a spec's plain document.

A row is a node or an adapter. A LoRA that is the only one on its host has no row: it is one of the host's states.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from assembler.registry import family
from assembler.spec import Stage

Plain = dict[str, Any]
FROZEN, LORA, TRAINED, BOTH = "frozen", "LoRA", "trained", "LoRA + trained"
LORA_TYPE = "adapter.lora"
HOSTS = ("encoder", "backbone", "projector", "head")
FIELDS = ("steps", "batch", "lr", "warmup", "schedule", "weight_decay", "clip", "save_every", "precision")


def well_formed(document: Plain) -> bool:
    """Whether the spec is one that a table can be made of: every node, adapter and stage is a mapping."""
    items = [*_nodes(document).values(), *_adapters(document).values(), *_stages(document)]
    data = document.get("data") or {}
    mappings = [data.get("options") or {}, data.get("columns") or {}]
    learning = [stage.get("train") or [] for stage in _stages(document) if isinstance(stage, dict)]
    return all(isinstance(item, dict) for item in [*items, *mappings]) and all(isinstance(x, list) for x in learning)


def rows(document: Plain) -> list[str]:
    """The parts that may learn, in the order of the spec."""
    nodes = [name for name, node in _nodes(document).items() if family(str(node.get("type", ""))) != "input"]
    folded = {_lora_of(document, name) for name in nodes}
    return [*nodes, *(name for name in _adapters(document) if name not in folded)]


def choices(document: Plain, row: str) -> list[str]:
    """What a row may be in a stage."""
    if row in _adapters(document):
        return [FROZEN, TRAINED]
    hosts = family(str(_nodes(document)[row].get("type", ""))) in HOSTS
    own = [name for name, adapter in _adapters(document).items() if adapter.get("host") == row]
    others = own and _lora_of(document, row) is None
    return [FROZEN, LORA, TRAINED, BOTH] if hosts and not others else [FROZEN, TRAINED]


def cell(document: Plain, row: str, stage: int) -> str:
    """What a row is in a stage."""
    learning = _stages(document)[stage].get("train") or []
    lora = _lora_of(document, row)
    tuned, trained = lora in learning, row in learning
    return BOTH if tuned and trained else LORA if tuned else TRAINED if trained else FROZEN


def set_cell(document: Plain, row: str, stage: int, state: str) -> Plain:
    """The document with a row in another state in a stage: a LoRA is attached where it needs one and there is none, and
    `freeze: true` is taken from a node that is to be trained."""
    found = deepcopy(document)
    lora = _lora_of(found, row)
    if state in (LORA, BOTH) and lora is None:
        lora = _free_name(found, f"{row}_lora")
        found.setdefault("adapters", {})[lora] = {"type": LORA_TYPE, "host": row}
    wanted = {row: state in (TRAINED, BOTH)}
    if lora is not None:
        wanted[lora] = state in (LORA, BOTH)
    train = [name for name in found["stages"][stage].get("train") or [] if wanted.get(name, True)]
    found["stages"][stage]["train"] = [*train, *(name for name, on in wanted.items() if on and name not in train)]
    if wanted[row] and _nodes(found).get(row, {}).get("freeze"):
        del found["nodes"][row]["freeze"]
    return found


def setting(document: Plain, stage: int, field: str) -> Any:
    """A stage's setting, or its default."""
    return _stages(document)[stage].get(field, Stage.model_fields[field].default)


def set_setting(document: Plain, stage: int, field: str, value: Any) -> Plain:
    """The document with a stage's setting; one that is the default and was not written stays unwritten."""
    found = deepcopy(document)
    if field in found["stages"][stage] or field == "name" or value != Stage.model_fields[field].default:
        found["stages"][stage][field] = value
    return found


def add_stage(document: Plain) -> Plain:
    """The document with one more stage, training what the last one does, or every projector, head and adapter."""
    found = deepcopy(document)
    stages = _stages(found)
    if stages:
        train = list(stages[-1].get("train") or [])
    else:
        small = [n for n, node in _nodes(found).items() if family(str(node.get("type", ""))) in ("projector", "head")]
        train = [*small, *_adapters(found)] or rows(found)[-1:]
    taken = {str(stage.get("name")) for stage in stages}
    name = next(name for name in ("align", "tune", *(f"stage{i}" for i in range(3, 200))) if name not in taken)
    found["stages"] = [*stages, {"name": name, "train": train}]
    return found


def counted(document: Plain, stage: int, objectives: list[str]) -> list[str]:
    """Which of the graph's objectives have losses that count in a stage."""
    chosen = _stages(document)[stage].get("objectives")
    return [name for name in objectives if name in chosen] if isinstance(chosen, list) else list(objectives)


def set_counted(document: Plain, stage: int, objectives: list[str], chosen: list[str]) -> Plain:
    """The document with the objectives whose losses count in a stage; all of them, or none, is left unwritten."""
    found = deepcopy(document)
    found["stages"][stage].pop("objectives", None)
    if 0 < len(chosen) < len(objectives):
        found["stages"][stage]["objectives"] = [name for name in objectives if name in chosen]
    return found


def remove_stage(document: Plain, stage: int) -> Plain:
    """The document without a stage."""
    found = deepcopy(document)
    del found["stages"][stage]
    return found


def _nodes(document: Plain) -> dict[str, Plain]:
    return document.get("nodes") or {}


def _adapters(document: Plain) -> dict[str, Plain]:
    return document.get("adapters") or {}


def _stages(document: Plain) -> list[Plain]:
    return document.get("stages") or []


def _lora_of(document: Plain, row: str) -> str | None:
    """The adapter on a host, when it is a LoRA and the only one there."""
    own = [name for name, adapter in _adapters(document).items() if adapter.get("host") == row]
    return own[0] if len(own) == 1 and _adapters(document)[own[0]].get("type") == LORA_TYPE else None


def _free_name(document: Plain, wanted: str) -> str:
    taken = {*_nodes(document), *_adapters(document)}
    return next(name for name in (wanted, *(f"{wanted}{i}" for i in range(2, 2000))) if name not in taken)
