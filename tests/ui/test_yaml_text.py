"""Editing YAML in place: the text says what was asked, and every line that need not change is the line it was."""

import copy
import difflib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.spec import parse, plain
from ui.yaml_text import patch, same, scalar

GALLERY = sorted((Path(__file__).parents[2] / "exports" / "gallery").glob("*.yaml"))
TEXT = """\
# what it is for
assembler: 1
name: birds   # of the north

nodes:
  # the camera
  photo: {type: input.image, size: [64, 64]}   # small
  eyes:
    type: encoder.timm
    model: test_vit      # a tiny one
    freeze: true

  # the words
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300,   hidden_size: 32}
    prompt: "{photo} what is this? {answer}"

edges:
- photo -> eyes     # pixels
# tokens
- eyes -> talk.photo

# the end
"""
names = st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(allow_nan=False), st.text(max_size=12)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=5,
)


def said(text: str) -> Any:
    return plain(parse(text).tree)


def kept(before: str, after: str) -> set[str]:
    """Lines of `before` that are not in `after`."""
    return {line[2:] for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line.startswith("- ")}


def test_one_value_changes_and_the_line_keeps_its_comment() -> None:
    new = said(TEXT)
    new["nodes"]["eyes"]["model"] = "test_resnet"
    assert kept(TEXT, patch(TEXT, said(TEXT), new)) == {"    model: test_vit      # a tiny one"}
    assert "    model: test_resnet      # a tiny one" in patch(TEXT, said(TEXT), new)


def test_a_removed_node_takes_its_lines_and_no_comment_line() -> None:
    new = said(TEXT)
    del new["nodes"]["eyes"]
    new["edges"] = ["photo -> talk.photo"]
    text = patch(TEXT, said(TEXT), new)
    assert said(text) == new
    assert {"# what it is for", "  # the camera", "  # the words", "# tokens", "# the end"} <= set(text.splitlines())


def test_a_renamed_node_keeps_what_is_written_in_it() -> None:
    new = said(TEXT)
    new["nodes"] = {"see" if key == "eyes" else key: value for key, value in new["nodes"].items()}
    assert patch(TEXT, said(TEXT), new) == TEXT.replace("  eyes:\n", "  see:\n")


def test_new_entries_stand_after_those_before_them() -> None:
    new = said(TEXT)
    new["nodes"]["bridge"] = {"type": "projector.mlp"}
    new["edges"].insert(1, "eyes -> bridge")
    new["layout"] = {"photo": [0, 0]}
    text = patch(TEXT, said(TEXT), new)
    assert said(text) == new and kept(TEXT, text) == set()
    assert '{answer}"\n  bridge: {type: projector.mlp}\n' in text


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_change_is_said_exactly(data: st.DataObject) -> None:
    old = said(TEXT)
    new = copy.deepcopy(old)
    for _ in range(data.draw(st.integers(1, 4))):
        section = data.draw(st.sampled_from(["nodes", "edges", "root", "inner"]))
        if section == "edges":
            new["edges"] = data.draw(st.lists(st.sampled_from([*old["edges"], "a -> b", "b -> c.d"]), max_size=5))
        elif section == "inner" and new["nodes"]:
            target = new["nodes"][data.draw(st.sampled_from(sorted(new["nodes"])))]
            if isinstance(target, dict):
                target[data.draw(st.one_of(names, st.sampled_from(["type", "config", "size"])))] = data.draw(values)
        elif section == "root":
            new[data.draw(names)] = data.draw(values)
        else:
            drop = data.draw(st.lists(st.sampled_from(sorted(new["nodes"])), unique=True)) if new["nodes"] else []
            for key in drop:
                del new["nodes"][key]
            new["nodes"].update(data.draw(st.dictionaries(names, values, max_size=2)))
    text = patch(TEXT, old, new)
    assert same(said(text), new), text


@settings(max_examples=60, deadline=None)
@given(scalars)
def test_a_scalar_reads_back_as_itself(value: Any) -> None:
    assert same(said(f"a: {scalar(value)}\nb: [{scalar(value)}]\n"), {"a": value, "b": [value]})


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_a_gallery_spec_keeps_its_other_lines_when_a_node_moves(path: Path) -> None:
    text = path.read_text()
    new = said(text)
    new["name"] = "renamed"
    assert said(patch(text, said(text), new)) == new
    assert len(kept(text, patch(text, said(text), new))) <= 1
