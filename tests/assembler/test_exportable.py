"""What cannot be exported is told from the spec, before anything is built or traced."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from assembler.bundle.graphs import ExportRefused
from assembler.check import check
from assembler.cli import app
from assembler.export import _language_model, export
from assembler.exportable import language_model, onnx_problems
from assembler.graph import Graph
from assembler.registry import parts
from assembler.spec import Document, Spec, parse

TREES = [tree for cls in parts().values() for tree, _ in cls.examples()]
LM = "{type: backbone.causal_lm, arch: %s, config: {vocab_size: 300}, prompt: '{photo} {question} {answer}'}"
TEXT = f"""\
assembler: 1
nodes:
  photo: {{type: input.image, size: [32, 32]}}
  eyes: {{type: encoder.timm, model: test_efficientnet}}
  bridge: {{type: projector.linear}}
  talk: {LM}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
"""


def graph_of(tree: dict) -> Graph:
    tree = {"assembler": 1, **tree}
    return check(Spec(Path("example.yaml").resolve(), Document.model_validate(tree), tree)).require()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TREES))
def test_the_export_refuses_what_is_refused_here_with_the_same_words_and_nothing_else(tree):
    graph = graph_of(tree)
    problems = onnx_problems(graph)
    if not problems:
        assert _language_model(graph) == language_model(graph)
        return
    with TemporaryDirectory() as folder, pytest.raises(ExportRefused, match=re.escape(problems[0].message)):
        export(graph, None, Path(folder) / "out", "fp32", [])  # type: ignore[arg-type]  # there is not even a model
    assert problems[0].message.startswith(f"{problems[0].node or 'the graph'}: ")


@pytest.mark.parametrize("arch", ["mamba", "jamba"])
def test_a_recurrent_lm_is_refused_by_name(arch, tmp_path):
    problems = onnx_problems(check(parse(TEXT % arch, tmp_path / "spec.yaml")))
    assert [p.message for p in problems] == [
        f"talk: backbone.causal_lm has no ONNX graph: {arch} keeps another state than keys and values"
    ]
    assert problems[0].place.line == 6


def test_validate_says_it_and_exits_with_one(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(TEXT % "mamba")
    assert CliRunner().invoke(app, ["validate", str(path)]).exit_code == 0
    said = CliRunner().invoke(app, ["validate", str(path), "--target", "onnx"])
    assert said.exit_code == 1 and f"{path}:6:3: talk: backbone.causal_lm has no ONNX graph" in said.output
