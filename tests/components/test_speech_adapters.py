"""The five speech adapters: closed forms equal loops, lengths are as ruled, padding is as if it were not there."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.batches import Batches
from assembler.check import check
from assembler.compile import compile_graph
from assembler.ragged import Ragged, packed, parted
from assembler.samples import Sound
from assembler.spec import Document, Spec, parse
from assembler.values import value
from components.projectors._speech_layers import Cif, CtcCompress, integrate, run_means
from components.projectors.cif import Cif as CifPart
from components.projectors.ctc_compress import CtcCompress as CtcPart
from components.projectors.speech_adapter_base import SpeechAdapterBase
from components.projectors.speech_adapter_conv import SpeechAdapterConv
from components.projectors.window_qformer import WindowQFormer

SMALL = {"width": 6, "hidden": 8, "layers": 3, "heads": 2, "feed_forward": 10}
ADAPTERS = [SpeechAdapterBase, SpeechAdapterConv, CifPart, CtcPart, WindowQFormer]
every_adapter = pytest.mark.parametrize("cls", ADAPTERS, ids=lambda cls: cls.__name__)
weights = st.lists(st.floats(0.01, 0.99), min_size=1, max_size=30)


def layer(cls, tokens: int, seed: int = 0):
    part, source = cls(**SMALL), value("tokens", ragged=True, facts={"rate": 12}, tokens=tokens, width=5)
    rule = part.shape({"in": source}, None, Path())
    torch.manual_seed(seed)
    return rule, part.build({"in": source}, rule, Path()).eval()


def called(module, tokens):
    """The module without the target of its auxiliary loss."""
    return module(None, tokens) if getattr(module, "length", None).__class__ in (Cif, CtcCompress) else module(tokens)


def integrated_one_by_one(a: torch.Tensor, x: torch.Tensor) -> list[torch.Tensor]:
    """Continuous integrate-and-fire as its paper tells it, a frame after the other."""
    tokens, held, state = [], 0.0, torch.zeros_like(x[0])
    for weight, frame in zip(a.tolist(), x, strict=True):
        while held + weight >= 1:
            tokens.append(state + (1 - held) * frame)
            weight -= 1 - held
            held, state = 0.0, torch.zeros_like(frame)
        held, state = held + weight, state + weight * frame
    return tokens


@settings(deadline=None)
@given(weights, st.floats(0.3, 3))
def test_cif_in_closed_form_is_the_scan(drawn, scale):
    a = torch.tensor(drawn, dtype=torch.float64) * scale
    x = torch.randn(len(a), 3, dtype=torch.float64)
    wanted = integrated_one_by_one(a, x)
    tokens, full = integrate(a[None], x[None], 3 * len(a) + 1)
    total = math.fsum(a.tolist())
    assert int(full) == len(wanted) or abs(total - round(total)) < 1e-9
    for i, token in enumerate(wanted[: int(full)]):
        torch.testing.assert_close(tokens[0, i], token)


@settings(deadline=None)
@given(weights)
def test_the_weights_of_full_tokens_are_ones(drawn):
    a = torch.tensor([drawn], dtype=torch.float64)
    shares, full = integrate(a, torch.ones(1, len(drawn), 1, dtype=torch.float64), len(drawn))
    torch.testing.assert_close(shares[0, : int(full), 0], torch.ones(int(full), dtype=torch.float64))


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20), st.integers(0, 5))
def test_averaging_runs_of_labels_is_the_loop(labels, padding):
    x = torch.randn(len(labels) + padding, 4)
    runs: list[list[int]] = []
    for t, label in enumerate(labels):
        if runs and labels[runs[-1][0]] == label:
            runs[-1].append(t)
        else:
            runs.append([t])
    mask = torch.arange(len(x)) < len(labels)
    tokens, real = run_means(x[None], torch.tensor([labels + [0] * padding]), mask[None])
    assert real.sum() == len(runs)
    torch.testing.assert_close(tokens[0, : len(runs)], torch.stack([x[run].mean(0) for run in runs]))


def test_while_it_learns_cif_gives_as_many_tokens_as_the_transcript_and_a_loss_for_the_difference():
    torch.manual_seed(0)
    cif = Cif(4, most=12, weight=0.5).train()
    x, count = torch.randn(3, 12, 4), torch.tensor([2, 7, 40])
    _, mask, loss = cif(x, None, count)
    assert mask.sum(1).tolist() == [2, 7, 12]
    total = cif.linear(x).squeeze(-1).sigmoid().sum(1)
    torch.testing.assert_close(loss, 0.5 * (total - count).abs().mean())
    assert cif.eval()(x, None, count)[1].sum(1).tolist() == total.floor().int().tolist()
    assert cif(x, None)[2] is None


@every_adapter
@settings(deadline=None, max_examples=10)
@given(real=st.integers(1, 14), padding=st.integers(0, 6), seed=st.integers(0, 99))
def test_padding_is_as_if_it_were_not_there(cls, real, padding, seed):
    torch.manual_seed(seed)
    x = torch.randn(1, real, 5)
    longer = torch.cat([x, torch.full((1, padding, 5), 9.0)], 1)
    mask = torch.arange(real + padding)[None] < real
    rule, module = layer(cls, real + padding, seed)
    with torch.no_grad():
        padded, kept = called(module, Ragged(longer, mask))
        module_alone = layer(cls, real, seed)[1]
        module_alone.load_state_dict(module.state_dict())
        alone, whole = parted(called(module_alone, Ragged(x, mask[:, :real])))
    assert padded.shape == (1, rule["tokens"], 6) and rule.ragged
    assert kept.sum() == whole.sum()
    torch.testing.assert_close(padded[kept], alone[whole], rtol=1e-4, atol=1e-5)


@every_adapter
@settings(deadline=None, max_examples=15)
@given(tokens=st.integers(1, 40))
def test_the_length_is_what_the_rule_says(cls, tokens):
    rule, module = layer(cls, tokens)
    with torch.no_grad():
        values, mask = called(module, Ragged(torch.randn(2, tokens, 5), torch.ones(2, tokens, dtype=torch.bool)))
    assert values.shape == (2, rule["tokens"], 6) and mask.shape == values.shape[:2]
    ratio = {SpeechAdapterConv: 4, WindowQFormer: 3}.get(cls, 1)  # 0.33 s at 12 a second are 3 frames
    assert rule["tokens"] == -(-tokens // ratio)
    if cls not in (CifPart, CtcPart):
        assert mask.all()


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3))
def test_packing_moves_what_is_real_to_the_left_in_its_order(rows):
    mask, x = torch.tensor(rows), torch.randn(len(rows), 6, 2)
    moved, real = packed(x, mask)
    for i in range(len(rows)):
        count = int(mask[i].sum())
        assert real[i].tolist() == [True] * count + [False] * (6 - count)
        assert torch.equal(moved[i, :count], x[i][mask[i]])


SPEC = """
assembler: 1
nodes:
  sound: {type: input.audio, seconds: 0.48}
  ears:
    type: encoder.whisper
    config: {d_model: 16, encoder_layers: 1, encoder_attention_heads: 2, max_source_positions: 50}
  bridge: {type: projector.ADAPTER, hidden: 8, layers: 3, heads: 2, feed_forward: 12}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4}
    prompt: "{sound} {answer}"
edges: [sound -> ears, ears -> bridge, bridge -> talk.sound]
"""


@pytest.mark.parametrize("name", [cls.type.split(".")[1] for cls in ADAPTERS])
def test_each_of_the_five_stands_between_a_speech_encoder_and_an_llm_and_learns(name):
    graph = check(parse(SPEC.replace("ADAPTER", name), Path("speech.yaml"))).require()
    assembly = compile_graph(graph)
    assembly.train_only(["bridge"])
    assembly.train()
    rows = [
        {"sound": Sound(torch.randn(size).mul(0.1).numpy(), 16_000), "answer": text, "transcript": text}
        for size, text in ((7680, "yes"), (4000, "no"))
    ]
    out = assembly(**Batches(graph)(rows))
    out["loss"].backward()
    lone = assembly.nodes["bridge"]
    extra = getattr(lone, "auxiliary_loss", None)
    assert (extra is not None) == (name in ("cif", "ctc_compress"))
    unreached = [key for key, p in lone.named_parameters() if p.grad is None]
    assert unreached == [] and out["loss"].isfinite()
    if name == "cif":
        batch = Batches(graph)(rows)
        assert batch["bridge_count"].tolist() == [3, 2]  # the LM's tokens are bytes


def test_a_window_without_a_rate_or_a_size_is_refused():
    tree = {
        "assembler": 1,
        "nodes": {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "bridge": {"type": "projector.window_qformer", "width": 8},
        },
        "edges": ["photo -> eyes", "eyes -> bridge"],
    }
    problems = check(Spec(Path("x.yaml"), Document.model_validate(tree), tree)).problems
    assert len(problems) == 1 and "give `window`" in problems[0].message
