"""Samples of different lengths: padding never reaches the LM, in torch or in a bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.batches import Batches
from assembler.check import check
from assembler.compile import compile_graph
from assembler.evaluate import TorchAnswers
from assembler.export import export
from assembler.ragged import Ragged, masked_mean, on_real
from assembler.samples import Sound
from assembler.spec import parse

SPEC = """
assembler: 1
nodes:
  sound: {type: input.audio, seconds: 0.48}
  ears:
    type: encoder.whisper
    config: {d_model: 16, encoder_layers: 1, encoder_attention_heads: 2, max_source_positions: 50}
  bridge: {type: projector.frame_stack, stack: 4}
  talk:
    type: backbone.causal_lm
    arch: ARCH
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{sound} {question} {answer}"
edges: [sound -> ears, ears -> bridge, bridge -> talk.sound]
"""


def model(arch: str = "llama"):
    graph = check(parse(SPEC.replace("ARCH", arch), Path("ragged.yaml"))).require()
    return graph, compile_graph(graph)


def row(seconds: float, seed: int = 0) -> dict:
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 8000)).astype(np.float32)
    return {"sound": Sound(samples, 8000), "question": "what?", "answer": "yes"}


def test_a_sound_of_another_rate_is_resampled_and_its_padding_marked():
    graph, _ = model()
    batch = Batches(graph).samples([row(0.2), row(1.0)])
    assert batch["sound"].shape == (2, 7680)
    assert batch["sound_mask"].sum(1).tolist() == [3200, 7680]
    assert not batch["sound"][0, 3200:].any() and batch["sound"][1].any()


@pytest.mark.parametrize("arch", ["llama", "mamba"])
def test_the_lm_answers_as_if_the_padding_had_never_been_there(arch):
    _, assembly = model(arch)
    lm = assembly.nodes["talk"]
    torch.manual_seed(0)
    values, mask = torch.randn(2, 6, 32), torch.tensor([[1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 1, 1]]).bool()
    ids = torch.tensor([[5, *range(300, 306), 7], [5, *range(306, 312), 7]])
    with torch.no_grad():
        whole = lm.logits(ids, torch.ones_like(ids), [Ragged(values, mask)], 2)
        for i in range(2):
            real = values[i][mask[i]][None]  # [1, n, D]
            alone = torch.tensor([[5, *range(300, 300 + real.shape[1]), 7]])
            cut = lm.logits(alone, torch.ones_like(alone), [real], 2)
            torch.testing.assert_close(whole[i : i + 1], cut, rtol=1e-4, atol=1e-5)


def test_only_what_is_real_goes_through_a_layer_and_the_lm():
    x, mask = torch.randn(2, 6, 4), torch.tensor([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]]).bool()
    seen = []
    out = on_real(lambda real: seen.append(real.shape) or real * 2, Ragged(x, mask))
    assert seen == [(1, 4, 4)] and torch.equal(out.mask, mask)
    assert torch.equal(out.values, torch.where(mask.unsqueeze(-1), x * 2, 0))
    _, assembly = model()
    ids = torch.tensor([[5, *range(300, 306), 7], [5, *range(306, 312), 7]])
    embeds, real = assembly.nodes["talk"].joined(ids, torch.ones_like(ids), [Ragged(torch.randn(2, 6, 32), mask)])
    assert embeds.shape == (2, 5, 32) and real.sum(1).tolist() == [5, 3]


def test_the_bundle_answers_as_torch_does_for_sounds_of_different_lengths(tmp_path):
    graph, assembly = model()
    rows = [row(length, seed) for seed, length in enumerate((0.1, 0.48, 0.3, 0.2))]
    report = export(graph, assembly, tmp_path / "bundle", "fp32", rows)
    assert report["ok"] and report["greedy"] == 1.0
    assert {line["graph"] for line in report["graphs"]} == {"sound.onnx", "end to end"}


def test_an_answer_does_not_depend_on_what_else_is_in_the_batch():
    graph, assembly = model()
    answers = TorchAnswers(graph, assembly)
    rows = [row(0.1), row(0.48, 1)]
    together = answers.logits(rows)
    torch.testing.assert_close(together[:1], answers.logits(rows[:1]), rtol=1e-4, atol=1e-5)


def test_a_part_that_cannot_tell_padding_is_refused_with_its_reason():
    tree = SPEC.replace("ARCH", "llama").replace("frame_stack, stack: 4", "pixel_shuffle, ratio: 2")
    problems = check(parse(tree, Path("ragged.yaml"))).problems
    assert any("samples of different lengths" in problem.message and problem.node == "bridge" for problem in problems)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_a_masked_mean_is_the_mean_of_what_is_real(rows):
    mask = torch.tensor(rows)
    values = torch.randn(len(rows), 5, 3)
    values[~mask] = float("nan")
    for got, x, real in zip(masked_mean(values, mask), values, mask, strict=True):
        torch.testing.assert_close(got, x[real].mean(0) if real.any() else torch.zeros(3))
