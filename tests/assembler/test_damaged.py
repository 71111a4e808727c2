"""Five hundred damaged specs: always located problems, never a traceback, never long, never big."""

import gc
import resource
import time
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from assembler.check import check
from assembler.cli import app

SPEC = """\
assembler: 1
name: rich
nodes:
  photo: {type: input.image, size: [32, 32]}
  sound: {type: input.audio, seconds: 0.5}
  eyes: {type: encoder.timm, model: test_efficientnet, weights: "file:eyes.safetensors", freeze: true}
  ears: {type: encoder.whisper, config: {d_model: 16, num_mel_bins: 80, max_source_positions: 50}}
  see: {type: projector.mlp, depth: 2}
  hear: {type: projector.linear}
  talk: {type: backbone.causal_lm, arch: llama, config: {vocab_size: 300, hidden_size: 64}, prompt: "{a} {b} {answer}"}
  head: {type: head.classifier, classes: 10}
edges: [photo -> eyes, sound -> ears, eyes -> see, ears -> hear, see -> talk.a, hear -> talk.b, eyes -> head]
adapters: {tune: {type: adapter.lora, host: talk, sites: "layers.*.attn.{q,v}"}}
data: {type: dataset.digits, columns: {photo: image, answer: word, sound: image, label: label}, held_out: 0.2}
stages: [{name: align, train: [see, hear], steps: 2, lr: 1.0e-3}, {name: tune, train: [tune], steps: 2}]
layout: {photo: [0, 0]}
"""
NASTY = [
    None, True, -1, 0, 10**30, 1e400, float("nan"), "", " ", "\x00", "\u202e", "\U0001f600", "a" * 5000, [], {}, [[]],
    {"a": {"b": []}}, "file:../../../etc/passwd", "pypi:x==1/../../y", "hf:../..", "file:/dev/zero", "{", "}{",
    "{answer} {answer}", "{0}", "{a.b}", "{a!r:>99999999}", "->", "a -> ", "photo -> photo", "talk -> photo",
    "layers.[0-99999999999].attn.q", "{" * 200, "!!python/object:os.system", "*alias", "2001-01-01", ["photo"] * 50,
]  # fmt: skip
FILES = {
    "empty": b"",
    "null": b"~",
    "list": b"- a\n- b\n",
    "not utf-8": b"assembler: 1\nname: \xff\xfe\n",
    "surrogate": "assembler: 1\nname: \ud800\n".encode("utf-8", "surrogatepass"),
    "binary": bytes(range(256)),
    "deep": b"assembler: 1\nnodes: " + b"[" * 10_000,
    "deep closed": b"assembler: 1\nnodes: " + b"[" * 3000 + b"]" * 3000,
    "bomb": b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nassembler: 1\n",
    "merge": b"base: &b {type: input.image}\nassembler: 1\nnodes: {a: {<<: *b}}\n",
    "python tag": b"assembler: 1\nnodes: !!python/object/apply:os.system ['true']\n",
    "binary tag": b"assembler: 1\nname: !!binary aGVsbG8=\n",
    "set tag": b"assembler: 1\nnodes: !!set {a, b}\n",
    "twice": b"assembler: 1\nassembler: 1\n",
    "tab": b"assembler: 1\nnodes:\n\ta: 1\n",
    "two documents": b"assembler: 1\n---\nassembler: 1\n",
    "date keys": b"assembler: 1\nnodes: {2001-01-01: {type: input.text}, 1: {type: input.text}}\n",
    "huge": b"assembler: 1\nname: " + b"a" * 2_000_000,
    "many nodes": b"assembler: 1\nnodes:\n" + b"".join(b"  n%d: {type: input.text}\n" % i for i in range(3000)),
    "directive": b"%YAML 9.9\n---\nassembler: 1\n",
    "complex key": b"assembler: 1\n? [a, b]\n: c\n",
}


def paths_of(tree, path=()):
    """Every place in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


TREE = YAML(typ="safe").load(SPEC)
PLACES = list(paths_of(TREE))


def damaged(draw) -> bytes:
    """The spec with some keys dropped, values swapped, and then perhaps some bytes."""
    import io

    tree = deepcopy(TREE)
    for _ in range(draw(st.integers(1, 4))):
        *parents, last = draw(st.sampled_from(PLACES))
        inner = tree
        for key in parents:
            inner = inner[key] if _has(inner, key) else None
        if not _has(inner, last):
            continue
        what = draw(st.sampled_from(["drop", "swap", "rename", "double"]))
        if what == "drop":
            del inner[last]
        elif what == "rename" and isinstance(inner, dict):
            inner[draw(st.sampled_from(["Type", "", "on", "photo", "x" * 300]))] = inner.pop(last)
        elif what == "double" and isinstance(inner, list):
            inner.append(inner[last])
        else:
            inner[last] = draw(st.sampled_from(NASTY) | st.text(max_size=20) | st.floats() | st.integers())
    text = io.StringIO()
    YAML(typ="safe").dump(tree, text)
    data = bytearray(text.getvalue().encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 1, 5]))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def _has(inner, key) -> bool:
    if isinstance(inner, dict):
        return key in inner
    return isinstance(inner, list) and isinstance(key, int) and key < len(inner)


@pytest.fixture(scope="module", autouse=True)
def only_its_own_garbage():
    """What other tests left in this process is not a check's to collect, and their threads are not its time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def examine(path: Path) -> None:
    """The law that every spec keeps, however broken."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    problems = check(path).problems
    assert time.thread_time() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024
    for problem in problems:
        assert problem.place.line >= 1 and problem.place.column >= 1
        line = problem.render("spec.yaml")
        assert problem.message.strip() and "Traceback" not in line
        line.encode("utf-8", "backslashreplace")


@settings(max_examples=500, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_damaged_spec_has_located_problems(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(damaged(data.draw))
    examine(path)


@pytest.mark.parametrize("wrong", [None, True, -1, 1.5, 10**30, "a", [], {}], ids=str)
def test_a_wrong_value_at_any_place_has_located_problems(wrong, tmp_path):
    for *parents, last in PLACES:
        tree = deepcopy(TREE)
        inner = tree
        for key in parents:
            inner = inner[key]
        inner[last] = wrong
        with (tmp_path / "spec.yaml").open("w") as file:
            YAML(typ="safe").dump(tree, file)
        examine(tmp_path / "spec.yaml")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_spec_is_refused_with_a_sentence(name, tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_bytes(FILES[name])
    examine(path)
    done = CliRunner().invoke(app, ["validate", str(path)])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit) and str(path) in done.output.replace("\n", "")


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    done = CliRunner().invoke(app, ["validate", str(tmp_path / "none.yaml")])
    assert done.exit_code == 1 and "cannot be read" in done.output
