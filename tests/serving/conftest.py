"""Small bundles to serve: one whose cache is in place, one whose cache grows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.compile import compile_graph
from assembler.export import export
from assembler.spec import parse
from tests.tracing import traced_once

SPEC = """
assembler: 1
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_efficientnet}
  bridge: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: WIDTH, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{photo} {question} {answer}"
    max_new_tokens: 24
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
"""


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def sample(seed: int) -> dict:
    return {"photo": picture(seed % 3), "question": "what is this? " * (1 + seed % 4)}


def make(folder: Path, width: int) -> Path:
    graph = check(parse(SPEC.replace("WIDTH", str(width)), Path("served.yaml"))).require()
    rows = [{**sample(seed), "answer": "yes"} for seed in range(2)]
    export(graph, compile_graph(graph), folder, "fp32", rows)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("served")
    with traced_once(tmp_path_factory):
        return {"in_place": make(root / "in_place", 64), "grows": make(root / "grows", 32)}


@pytest.fixture(scope="session", params=["in_place", "grows"])
def bundle(request, folders) -> Bundle:
    found = Bundle(folders[request.param])
    assert found.manifest.cache == request.param
    return found


SENSES = """
assembler: 1
nodes:
  voice: {type: input.audio, seconds: 0.48}
  ears:
    type: encoder.whisper
    config: {d_model: 16, encoder_layers: 1, encoder_attention_heads: 2, max_source_positions: 50}
  stacked: {type: projector.frame_stack, stack: 4}
  shape: {type: input.points, points: 64}
  feels: {type: encoder.point_transformer, groups: 8, neighbours: 8, width: 32, depth: 1, heads: 2}
  joined: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{voice} {shape} {question} {answer}"
edges: [voice -> ears, ears -> stacked, stacked -> talk.voice, shape -> feels, feels -> joined, joined -> talk.shape]
"""
