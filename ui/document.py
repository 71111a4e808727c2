"""The editor's document: the graph as plain data beside the YAML text that it was opened from.

`text_of(document)` is always a patch of that first text, never of the last result, so a gesture that is undone leaves
no trace, and a document nobody changed gives back its text byte for byte.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import yaml
from pydantic import ValidationError

from assembler.problems import Problem
from assembler.spec import Document, Spec, parse, plain, validation_problem
from ui.yaml_text import compose, patch, same

Graph = dict[str, Any]
SECTIONS: dict[str, Any] = {
    "name": "model",
    "nodes": {},
    "edges": [],
    "adapters": {},
    "compose": {},
    "data": None,
    "stages": [],
    "layout": {},
    "groups": {},
}
"""What the editor holds of a spec, with the value that stands for an absent key; every other key stays in the text."""


EMPTY = "assembler: 1\nname: model\nnodes: {}\nedges: []\n"


class EditorDocument(TypedDict):
    """What the browser edits: `base`, a valid YAML text, and the sections of SECTIONS as they are to be."""

    base: str
    graph: Graph


def document_of(text: str) -> EditorDocument | None:
    """The document of a text; None when it is no YAML mapping, which `assembler.spec.parse` says why."""
    tree = _tree(text)
    return None if tree is None else {"base": text, "graph": _for_browser(_sections(tree))}


def text_of(document: EditorDocument) -> str:
    """The YAML text of a document."""
    base, graph = document["base"], document["graph"]
    tree = _tree(base)
    if tree is None:
        raise ValueError("the document's base is not a spec")
    wanted = _restored(tree, graph)
    if same(wanted, tree):
        return base
    text = patch(base, tree, wanted)
    return text if text.endswith("\n") or not base.endswith("\n") else text + "\n"


def spec_of(document: EditorDocument, path: Path, root: Path | None = None) -> tuple[Spec, str]:
    """The spec of a document and its text, without reading the text's values again; places are those in the text."""
    text = text_of(document)
    tree = _tree(document["base"])
    assert tree is not None
    wanted, node = _restored(tree, document["graph"]), compose(text)
    placed = _placed(wanted, node)
    try:
        return Spec(path, Document.model_validate(wanted), placed, root=root), text
    except ValidationError as error:
        problems = [validation_problem(item, placed, (), Document) for item in error.errors()]
        return Spec(path, None, placed, problems, root=root), text


def drawable(spec: Spec) -> Spec:
    """Only the nodes, wires and adapters of a spec, those that are well-formed, for a graph that is half built."""
    tree = spec.tree
    nodes = {key: raw for key, raw in _mapping(tree, "nodes").items() if isinstance(raw, dict)}
    adapters = {key: raw for key, raw in _mapping(tree, "adapters").items() if isinstance(raw, dict)}
    edges = [edge for edge in tree.get("edges") or [] if isinstance(edge, str)]
    document = Document.model_construct(assembler=1, nodes=nodes, edges=edges, adapters=adapters)
    return Spec(spec.path, document, tree, root=spec.root)


def _mapping(tree: dict[str, Any], key: str) -> dict[str, Any]:
    value = tree.get(key)
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}


def reads_back(document: EditorDocument, text: str) -> bool:
    """Whether a text says what the document says, read from nothing but the text."""
    tree, base = _tree(text), _tree(document["base"])
    return tree is not None and base is not None and same(tree, _restored(base, document["graph"]))


def meaning(document: EditorDocument) -> str:
    """What tells two documents apart that compute different things: all but names and where things stand."""
    graph = {key: value for key, value in document["graph"].items() if key not in ("name", "layout", "groups")}
    return json.dumps(graph, sort_keys=True)


def refusals(text: str, path: Path) -> list[Problem]:
    """Why a text cannot be drawn at all; empty when it can."""
    spec = parse(text, path)
    return spec.problems if spec.tree is None else []


@lru_cache(maxsize=64)
def _tree(text: str) -> dict[str, Any] | None:
    tree = parse(text).tree
    return plain(tree) if isinstance(tree, dict) else None


def _sections(tree: dict[str, Any]) -> Graph:
    """The sections, each of the kind the browser can rely on; one of another kind is left to the text."""
    found = {}
    for key, absent in SECTIONS.items():
        value = tree.get(key, absent)
        kind = dict if key == "data" else type(absent)
        found[key] = value if isinstance(value, kind) else absent
    found["edges"] = [edge for edge in found["edges"] if isinstance(edge, str)]
    return found


def _restored(tree: dict[str, Any], graph: Graph) -> dict[str, Any]:
    """What the text is to say: the sections that the browser changed, and all else as it stands in the text."""
    was, found = _sections(tree), dict(tree)
    for key, absent in SECTIONS.items():
        value = _as_before(was[key], graph.get(key, absent))
        if same(value, was[key]):
            continue
        if value == absent and key != "name" and key not in tree:
            continue
        if value in (None, {}, []) and key not in ("nodes", "edges"):
            found.pop(key, None)
        else:
            found[key] = value
    return _ordered(found, tree)


def _ordered(found: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """New sections after those that come before them in SECTIONS; what stood in the text keeps its place."""
    keys, order = [key for key in tree if key in found], list(SECTIONS)
    for key in found:
        if key not in tree:
            before = [k for k in keys if k in order and order.index(k) < order.index(key)]
            after = [k for k in keys if k in order and order.index(k) > order.index(key)]
            place = keys.index(before[-1]) + 1 if before else keys.index(after[0]) if after else len(keys)
            keys.insert(place, key)
    return {key: found[key] for key in keys}


def _as_before(was: Any, now: Any) -> Any:
    """`now`, with the parts of `was` that it means again: 1.0 comes back from a browser as 1, a date as text."""
    if isinstance(now, dict) and isinstance(was, dict):
        return {key: _as_before(was[key], item) if key in was else item for key, item in now.items()}
    if isinstance(now, list) and isinstance(was, list):
        return [_as_before(was[i], item) if i < len(was) else item for i, item in enumerate(now)]
    return was if same(_for_browser(was), now) else now


def _for_browser(value: Any) -> Any:
    """A value as JSON holds it without loss; what it cannot hold is text."""
    if isinstance(value, dict):
        return {key: _for_browser(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_for_browser(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) > 2**53:
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


class _Marks:
    def __init__(self) -> None:
        self.data: dict[str | int, tuple[int, int]] = {}


class _PlacedDict(dict[str, Any]):
    lc: _Marks


class _PlacedList(list[Any]):
    lc: _Marks


def _placed(value: Any, node: yaml.Node | None) -> Any:
    """Plain data with the line and column of each entry, as ruamel's trees have them."""
    if isinstance(value, dict) and isinstance(node, yaml.MappingNode) and len(node.value) == len(value):
        found, marks = _PlacedDict(), _Marks()
        for (name, item), (key, inner) in zip(value.items(), node.value, strict=True):
            found[name] = _placed(item, inner)
            marks.data[name] = (key.start_mark.line, key.start_mark.column)
        found.lc = marks
        return found
    if isinstance(value, list) and isinstance(node, yaml.SequenceNode) and len(node.value) == len(value):
        items, marks = _PlacedList(), _Marks()
        for index, (item, inner) in enumerate(zip(value, node.value, strict=True)):
            items.append(_placed(item, inner))
            marks.data[index] = (inner.start_mark.line, inner.start_mark.column)
        items.lc = marks
        return items
    return value
