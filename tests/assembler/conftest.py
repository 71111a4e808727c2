"""A small two-stage spec on real digits, and a run of it."""

import pytest

from assembler.runs import Run
from assembler.spec import parse, read
from assembler.train import train

TWO_STAGES = """\
assembler: 1
name: small
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_efficientnet, freeze: true}
  bridge: {type: projector.mlp, norm: true}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{photo} {question} {answer}"
    max_new_tokens: 6
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
adapters:
  tune: {type: adapter.lora, host: talk, rank: 4, dropout: 0.2}
data: {type: dataset.digits, options: {question: "?"}, columns: {photo: image, answer: word}}
stages:
  - {name: align, train: [bridge], steps: 6, batch: 4, lr: 1.0e-2, save_every: 2, warmup: 1}
  - {name: tune, train: [bridge, tune], steps: 6, batch: 4, lr: 1.0e-2, save_every: 2}
"""


@pytest.fixture
def spec(tmp_path):
    """The spec, in a file of its own."""
    path = tmp_path / "small.yaml"
    path.write_text(TWO_STAGES)
    return read(path)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory) -> Run:
    """A finished run of the spec."""
    folder = tmp_path_factory.mktemp("unbroken")
    (folder / "small.yaml").write_text(TWO_STAGES)
    return train(parse(TWO_STAGES, folder / "small.yaml"), folder / "run")
