"""Slots that share an encoder share its graph: it is held once and run once, and fills each as torch does."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from assembler.bundle.precisions import Precisions
from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.compile import compile_graph
from assembler.deploy.triton import write_repository
from assembler.export import export, graph_file, shared
from assembler.samples import Sound
from assembler.serving.engine import Engine, Request
from assembler.spec import parse

EYES = (
    "{type: encoder.hf_vision, config: {model_type: vit, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,"
    " image_size: 16, patch_size: 8, intermediate_size: 16}}"
)
EARS = (
    "{type: encoder.whisper, config: {d_model: 16, encoder_ffn_dim: 32, encoder_layers: 1, num_mel_bins: 80,"
    " encoder_attention_heads: 2, max_source_positions: 50}}"
)
SPEC = f"""\
assembler: 1
nodes:
  photo: {{type: input.image, size: [16, 16]}}
  sound: {{type: input.audio, seconds: 0.5}}
  eyes: {EYES}
  others: {EYES}
  ears: {EARS}
  one: {{type: projector.linear}}
  two: {{type: projector.mlp, depth: 2}}
  three: {{type: projector.linear}}
  heard: {{type: projector.linear}}
  felt: {{type: projector.mlp, depth: 1}}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {{vocab_size: 300, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2}}
    max_new_tokens: 5
    prompt: "See {{decoder}} and {{near}}, {{far}}, hear {{loud}} {{low}} and {{again}}: {{question}} {{answer}}"
edges:
  - photo -> eyes
  - photo -> others
  - sound -> ears
  - eyes -> one
  - eyes -> two
  - others -> three
  - ears -> heard
  - ears -> felt
  - one -> talk.near
  - two -> talk.far
  - three -> talk.decoder
  - heard -> talk.loud
  - felt -> talk.low
  - heard -> talk.again
"""
RNG = np.random.default_rng(0)
ROWS = [
    {
        "photo": Image.fromarray(RNG.integers(0, 255, (16, 16, 3), np.uint8)),
        "sound": Sound(RNG.normal(size=size).astype(np.float32), 16_000),
        "question": "what?",
        "answer": "abc",
    }
    for size in (3000, 8000)
]
GROUPS = [["near", "far"], ["decoder"], ["loud", "low", "again"]]
FILES = ["near-far.onnx", "decoder-slot.onnx", "loud-low-again.onnx"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return check(parse(SPEC, tmp_path_factory.mktemp("shared") / "spec.yaml")).require()


@pytest.fixture(scope="module")
def exported(graph, tmp_path_factory):
    """(folder, its parity report)."""
    folder = tmp_path_factory.mktemp("bundles") / "shared"
    return folder, export(graph, compile_graph(graph), folder, "fp32", ROWS)


def test_slots_with_one_encoder_have_one_graph(graph) -> None:
    groups = shared(graph, "talk", Precisions("fp32"))
    assert sorted(map(sorted, groups)) == sorted(map(sorted, GROUPS))
    assert [graph_file(group) for group in GROUPS] == FILES
    apart = shared(graph, "talk", Precisions("fp32", {"far": "fp16"}))
    assert ["near"] in apart and ["far"] in apart


def test_many_slots_make_no_name_that_is_too_long() -> None:
    assert len(graph_file(["s" * 64, *(f"t{i}" for i in range(90))])) < 255


def test_each_slot_is_filled_as_in_torch_and_no_weight_is_there_twice(exported) -> None:
    folder, report = exported
    assert report["ok"] and report["greedy"] == 1.0
    named = [row["graph"] for row in report["graphs"]]
    assert {"near-far.onnx, near", "near-far.onnx, far", "decoder-slot.onnx"} <= set(named)
    assert sorted(Bundle(folder).manifest.encoders) == sorted(FILES)
    slots = json.loads((folder / "manifest.json").read_text())["slots"]
    assert "outputs" not in slots["decoder"] and slots["far"]["outputs"] == ["far_features"]
    assert slots["low"]["outputs"] == ["low_features", "low_mask"]
    weights = [x.raw_data for x in onnx.load(folder / "near-far.onnx").graph.initializer if len(x.raw_data) > 512]
    assert len(weights) == len(set(weights)) > 4


def test_a_graph_of_two_slots_runs_once_a_prompt(exported, monkeypatch) -> None:
    bundle, runs = Bundle(exported[0]), []
    features = Bundle.features
    monkeypatch.setattr(Bundle, "features", lambda self, file, rows: runs.append(file) or features(self, file, rows))
    answers = bundle.generate(ROWS)
    assert sorted(runs) == sorted(FILES)
    runs.clear()
    engine = Engine(bundle, rows=2, context=200)
    try:
        keys = [{"photo": f"p{i}", "sound": f"s{i}"} for i in range(len(ROWS))]
        asked = [engine.submit(Request(row, key)) for row, key in zip(ROWS * 2, keys * 2, strict=True)]
        assert [answer.text() for answer in asked] == answers * 2
    finally:
        engine.close()
    assert sorted(runs) == sorted([*FILES, *FILES])  # of four requests two were known


def test_graphs_leave_each_other_the_processors(exported) -> None:
    bundle = Bundle(exported[0])
    for session in (*bundle.encoders.values(), bundle.embedding, bundle.decoder):
        wait = session.get_session_options().get_session_config_entry("session.intra_op.spin_duration_us")
        assert int(wait) <= 1000


def test_the_bundles_own_script_and_triton_take_it(exported, tmp_path: Path) -> None:
    folder = exported[0]
    np.save(tmp_path / "photo.npy", np.asarray(ROWS[0]["photo"]))
    np.save(tmp_path / "sound.npy", ROWS[0]["sound"].samples)
    inputs = [word for name in ("photo", "sound") for word in ("--input", f"{name}={tmp_path / name}.npy")]
    done = subprocess.run(
        [sys.executable, str(folder / "run_bundle.py"), *inputs, "--text", "question=what?"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.removesuffix("\n") == Bundle(folder).generate(ROWS[:1])[0] and not done.stderr, done.stderr
    models = write_repository(folder, tmp_path / "repository")
    assert len(models) == 1 + len(FILES) + 2
