"""Parts that join several wires: what they put together, what they leave alone untrained, and widths that pass them."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.check import check
from assembler.compile import compile_graph
from assembler.part import WireError
from assembler.ragged import Ragged
from assembler.spec import parse
from assembler.values import value
from components.projectors._crossing import CrossAttentionLayer, SideChannelLayer, chunks
from components.projectors._joining import Concatenated, GatedSumLayer
from components.projectors._layers import GroupedBottleneckLayer, ModalityTokenLayer
from components.projectors.concat import Concat
from components.projectors.gated_sum import GatedSum
from components.projectors.side_channel import SideChannel

LENGTHS = st.lists(st.integers(1, 5), min_size=2, max_size=4)


@settings(deadline=None)
@given(LENGTHS, st.lists(st.booleans(), min_size=4, max_size=4))
def test_concat_keeps_every_token_and_what_is_real(lengths, ragged):
    inputs, masks = [], []
    for length, odd in zip(lengths, ragged, strict=False):
        x, mask = torch.randn(2, length, 3), torch.rand(2, length) < 0.5
        inputs.append(Ragged(x, mask) if odd else x)
        masks.append(mask if odd else torch.ones(2, length, dtype=torch.bool))
    out = Concatenated()(*inputs)
    names = tuple(f"port{i}" for i in range(len(lengths)))
    wires = [
        value("tokens", ragged=isinstance(x, Ragged), tokens=n, width=3) for x, n in zip(inputs, lengths, strict=True)
    ]
    rule = Concat(inputs=names).shape(dict(zip(names, wires, strict=True)), None, Path())
    assert isinstance(out, Ragged) == rule.ragged
    if rule.ragged:
        assert torch.equal(out.mask, torch.cat(masks, 1))
        assert out.values.shape == (2, rule["tokens"], 3)
    else:
        assert torch.equal(out, torch.cat(inputs, 1))


def test_a_sum_is_its_first_input_until_its_gates_open_and_padding_adds_nothing():
    layer = GatedSumLayer(4, 3)
    first, second, whole = torch.randn(2, 5, 4), torch.randn(2, 5, 4), torch.randn(2, 4)
    assert torch.equal(layer(first, second, whole), first)
    torch.nn.init.constant_(layer.gates, 0.3)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    gate = torch.tensor(0.3).tanh()
    wanted = first + gate * torch.where(mask.unsqueeze(-1), second, 0) + gate * whole.unsqueeze(1)
    torch.testing.assert_close(layer(first, Ragged(second, mask), whole), wanted)


def test_inputs_that_do_not_fit_are_refused_with_their_sizes():
    two = {"first": value("tokens", tokens=5, width=8), "second": value("tokens", tokens=4, width=8)}
    with pytest.raises(WireError, match="`second` has 4 tokens to be added to 5"):
        GatedSum().shape(two, None, Path())
    with pytest.raises(WireError, match="`first` is 8 wide and `second` 9"):
        Concat().shape({**two, "second": value("tokens", tokens=4, width=9)}, None, Path())


def test_cross_attention_and_a_bottleneck_pass_their_tokens_on_untrained():
    x, context = torch.randn(2, 5, 8), torch.randn(2, 3, 6)
    assert torch.equal(CrossAttentionLayer(8, 6, layers=2, heads=2, size=4, multiple=2)(x, context), x)
    assert not torch.allclose(CrossAttentionLayer(8, 6, 2, heads=2, size=4, multiple=2, gate=0.5)(x, context), x)
    assert torch.equal(GroupedBottleneckLayer(8, 4, groups=2, dropout=0.1).train()(x), x)


def test_each_group_of_a_bottleneck_writes_its_own_channels():
    layer = GroupedBottleneckLayer(6, 4, groups=2, dropout=0.0)
    torch.nn.init.normal_(layer.up)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 6)
    whole = torch.block_diag(*layer.up)  # [h, d]
    torch.testing.assert_close(layer(x), x + layer.down(x) @ whole + layer.bias)


def test_a_modality_token_stands_before_all_others():
    layer = ModalityTokenLayer(4)
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1, 0, 0], [1, 1, 1]]).bool()
    out = layer(Ragged(x, mask))
    assert torch.equal(out.values[:, 0], layer.token[0].expand(2, -1)) and out.mask[:, 0].all()
    assert torch.equal(out.values[:, 1:][mask], x[mask]) and torch.equal(out.mask[:, 1:], mask)


@settings(deadline=None)
@given(frames=st.integers(1, 12), times=st.integers(1, 40))
def test_the_steps_of_a_side_channel_are_dealt_out_in_order(frames, times):
    steps, held = chunks(frames, times)
    seen = [step[real].tolist() for step, real in zip(steps, held, strict=True)]
    assert all(seen)
    if times >= frames:
        assert [step for one in seen for step in one] == list(range(times))
        assert max(map(len, seen)) - min(map(len, seen)) <= 1
    else:
        assert [one for (one,) in seen] == sorted(one for (one,) in seen)


def opened_side_channel(frames: int = 4, times: int = 8) -> SideChannelLayer:
    torch.manual_seed(0)
    layer = SideChannelLayer(6, 5, 7, hidden=8, layers=2, heads=2, frames=frames, times=times)
    torch.nn.init.ones_(layer.norm.weight)
    return layer


def test_a_side_channel_adds_nothing_untrained():
    layer = SideChannelLayer(6, 5, 7, hidden=8, layers=2, heads=2, frames=4, times=8)
    base = torch.randn(2, 12, 7)
    assert torch.equal(layer(torch.randn(2, 12, 6), base, torch.randn(2, 16, 5)), base)


@settings(deadline=None, max_examples=20)
@given(step=st.integers(0, 7))
def test_a_frame_sees_only_its_own_part_of_the_side_channel(step):
    layer = opened_side_channel()
    video, base, side = torch.randn(1, 12, 6), torch.randn(1, 12, 7), torch.randn(1, 16, 5)
    other = side.clone()
    other[:, 2 * step : 2 * step + 2] += 1  # two tokens a step
    with torch.no_grad():
        moved = (layer(video, base, other) != layer(video, base, side)).any(-1).view(4, 3).any(-1)
    assert moved.nonzero().flatten().tolist() == [step // 2]


def test_the_padding_of_a_side_channel_says_nothing():
    layer = opened_side_channel()
    video, base, side = torch.randn(1, 12, 6), torch.randn(1, 12, 7), torch.randn(1, 16, 5)
    mask = torch.arange(16)[None] < 5
    with torch.no_grad():
        first = layer(video, base, Ragged(side, mask))
        second = layer(video, base, Ragged(torch.where(mask.unsqueeze(-1), side, 9.0), mask))
    assert torch.equal(first, second) and first.isfinite().all()


def test_the_patch_of_the_paper_has_its_parameters():
    wires = {
        "in": value("tokens", facts={"frames": 32}, tokens=32 * 196, width=1152),
        "projected": value("tokens", tokens=32 * 196, width=3584),
        "side": value("tokens", tokens=32, width=1024),
    }
    part = SideChannel()
    with torch.device("meta"):
        module = part.build(wires, part.shape(wires, None, Path()), Path())
    assert sum(p.numel() for p in module.parameters()) == 8_996_352


def test_the_width_that_the_llm_needs_goes_through_a_joining_part():
    tree = """
assembler: 1
nodes:
  photo: {type: input.image, size: [64, 64]}
  eyes: {type: encoder.timm, model: test_efficientnet}
  left: {type: projector.linear}
  right: {type: projector.mlp}
  both: {type: projector.concat, inputs: [left, right]}
  mark: {type: projector.modality_token}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4}
    prompt: "{photo} {answer}"
edges: [photo -> eyes, eyes -> left, eyes -> right, left -> both.left, right -> both.right, both -> mark,
        mark -> talk.photo]
"""
    graph = check(parse(tree, Path("both.yaml"))).require()
    assert str(graph.values["left"]) == "tokens [batch, 4, 32]"
    assert str(graph.values["mark"]) == "tokens [batch, 9, 32]"
    assert compile_graph(graph).nodes["left"][0].out_features == 32


def test_a_port_that_concat_lacks_can_be_added_with_a_click():
    tree = """
assembler: 1
nodes:
  photo: {type: input.image, size: [64, 64]}
  eyes: {type: encoder.timm, model: test_efficientnet}
  both: {type: projector.concat}
edges: [photo -> eyes, eyes -> both.first, eyes -> both.second, eyes -> both.third]
"""
    (problem,) = check(parse(tree, Path("both.yaml"))).problems
    assert problem.fix.operations[0]["value"] == ["first", "second", "third"]
