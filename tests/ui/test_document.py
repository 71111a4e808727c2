"""The editor's document: what nobody changed is the text it was, and the page says what `assembler validate` says."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.check import check
from assembler.spec import parse, plain
from ui.document import document_of, drawable, meaning, reads_back, refusals, spec_of, text_of
from ui.yaml_text import same

GALLERY = sorted((Path(__file__).parents[2] / "exports" / "gallery").glob("*.yaml"))
DIGITS = (Path(__file__).parents[2] / "exports" / "gallery" / "digits.yaml").read_text()
ODD = """\
# kept
assembler: 1
nodes:
  a: {type: not.installed, when: 2001-01-01, big: 123456789012345678901, far: .inf, one: 1.0, on: yes}
  b: 3
  c:   # nothing
edges: [a -> b, "no edge", 7]
own: {key: value}   # of no section
layout:
"""


def through_browser(document: Any) -> Any:
    """A document as it comes back from JavaScript, where 1.0 is 1."""

    def numbers(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: numbers(item) for key, item in value.items()}
        if isinstance(value, list):
            return [numbers(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return numbers(json.loads(json.dumps(document, allow_nan=False)))


def opened(text: str) -> Any:
    document = document_of(text)
    assert document is not None
    return through_browser(document)


@pytest.mark.parametrize("text", [*(path.read_text() for path in GALLERY), ODD, "{assembler: 1, nodes: {}}", "a: b"])
def test_what_was_not_changed_is_the_text_it_was(text: str) -> None:
    assert text_of(opened(text)) == text


@pytest.mark.parametrize("text", ["", "- a", "a: [", "a: &x 1\nb: *x", "a: !!python/name:os.system x", "\t"])
def test_what_cannot_be_drawn_is_said_with_its_place(text: str) -> None:
    assert document_of(text) is None
    problem = refusals(text, Path("x.yaml"))[0]
    assert problem.message and problem.place.line >= 1


def test_a_section_of_another_kind_stays_in_the_text() -> None:
    document = opened("assembler: 1\nnodes: [1, 2]   # no mapping\nedges: {a: b}\n")
    document["graph"]["name"] = "x"
    text = text_of(document)
    assert "nodes: [1, 2]   # no mapping" in text and "edges: {a: b}" in text and "name: x" in text


def test_undone_changes_leave_no_trace() -> None:
    document = opened(DIGITS)
    changed = copy.deepcopy(document)
    del changed["graph"]["nodes"]["eyes"]
    changed["graph"]["adapters"] = {}
    assert text_of(changed) != DIGITS
    changed["graph"] = copy.deepcopy(document["graph"])
    assert text_of(changed) == DIGITS


def test_moving_and_naming_do_not_change_what_is_computed() -> None:
    document = opened(DIGITS)
    moved = copy.deepcopy(document)
    moved["graph"] |= {"layout": {"photo": [9, 9]}, "name": "x", "groups": {"g": {"nodes": ["photo"]}}}
    assert meaning(moved) == meaning(document)
    moved["graph"]["nodes"]["bridge"]["depth"] = 3
    assert meaning(moved) != meaning(document)


def test_shapes_are_shown_while_another_section_is_wrong() -> None:
    document = opened(DIGITS)
    document["graph"]["stages"][0]["train"] = []
    spec, _ = spec_of(document, Path("x.yaml"))
    assert spec.document is None
    assert str(check(drawable(spec)).values["bridge"]) == "tokens [batch, 16, 576]"


names = st.sampled_from(["photo", "eyes", "bridge", "talk", "tune", "other"])
wires = st.sampled_from(
    ["photo -> eyes", "eyes -> bridge", "bridge -> talk.photo", "eyes -> talk.photo", "talk -> eyes", "x"]
)


@st.composite
def gestures(draw: st.DrawFn) -> Any:
    """A digits document after some changes that a page can make, sound or not."""
    document = opened(DIGITS)
    graph = document["graph"]
    for _ in range(draw(st.integers(1, 5))):
        change = draw(st.integers(0, 7))
        name = draw(names)
        if change == 0:
            graph["nodes"].pop(name, None)
        elif change == 1:
            graph["nodes"][name] = draw(st.sampled_from([{"type": "projector.linear"}, {"type": "nope"}, {}, None, 3]))
        elif change == 2:
            graph["edges"] = draw(st.lists(wires, max_size=5))
        elif change == 3:
            graph["adapters"][name] = {
                "type": "adapter.lora",
                "host": draw(names),
                "sites": draw(st.sampled_from(["a{", "x"])),
            }
        elif change == 4:
            graph["layout"] = draw(st.dictionaries(names, st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(list)))
        elif change == 5:
            graph["stages"] = draw(
                st.sampled_from([[], [{"name": "s", "train": ["tune"]}], [{"name": "s", "train": []}]])
            )
        elif change == 6:
            graph["data"] = draw(st.sampled_from([None, {"type": "dataset.digits"}, {"type": 3}, {}]))
        elif isinstance(graph["nodes"].get(name), dict):
            value = draw(st.sampled_from([1, 2.5, True, "text: # {x}", None, [1], {"a": "b"}]))
            graph["nodes"][name][draw(st.sampled_from(["depth", "freeze", "prompt", "extra"]))] = value
    return document


@settings(max_examples=60, deadline=None)
@given(gestures())
def test_the_page_and_validate_agree(document: Any) -> None:
    spec, text = spec_of(document, Path("x.yaml"))
    read = parse(text, Path("x.yaml"))
    assert same(plain(spec.tree), plain(read.tree)) and reads_back(document, text)
    assert [p.as_dict() for p in check(spec).problems] == [p.as_dict() for p in check(read).problems]
    again = document_of(text)
    assert again is not None and text_of(through_browser(again)) == text
