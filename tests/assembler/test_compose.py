"""Compositions of adapters: what the grammar reads, refuses, and computes on a live host."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from assembler.adapters.blocks import Block, Leaf, parse
from assembler.adapters.book import adapters_of
from assembler.errors import AssemblerError
from components.adapters.fusion import Fusion
from components.adapters.lora import Lora
from components.adapters.parallel import Parallel
from components.adapters.prefix import Prefix
from components.adapters.router import Router
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_matrix import graph_of

CASE = HOSTS["llama"]
IDS = CASE.batch["input_ids"]


def trees(names=tuple("abcdefgh")):
    """Nested blocks over distinct names."""

    def block(children):
        return st.builds(lambda op, inner: Block(op, tuple(inner)), st.sampled_from(["stack", "parallel"]), children)

    leaves = st.permutations(names).map(lambda order: [Leaf(name) for name in order])
    return leaves.flatmap(
        lambda order: st.sampled_from([1, 2, 3]).map(
            lambda size: Block("stack", tuple(Block("parallel", tuple(order[i : i + size])) for i in range(0, 8, size)))
        )
    )


@given(trees())
def test_what_is_written_is_read_back(tree):
    assert parse(str(tree)) == tree


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stack(a, a)", "a is named twice"),
        ("stak(a)", "there is no block stak; did you mean stack?"),
        ("stack(a", "is no composition; write it like stack(a, parallel(b, c))"),
        ("__import__('os').system('true')", "is no composition"),
        ("stack()", "holds nothing"),
        ("fuse(a, b)", "fuse needs `by=`"),
        ("split(a, b, at=[4, 2])", "takes 1 rising positions"),
        ("average(a, b, weights=[1, -1])", "whose sum is not 0"),
        ("average(a, b, weights=1)", "is a list of numbers"),
        ("stack(a, by=b)", "stack has no option by; it takes none"),
        ("(" * 500 + "a" + ")" * 500, "is no composition"),
    ],
)
def test_what_is_no_composition_is_refused(text, said):
    with pytest.raises(AssemblerError, match=re.escape(said)):
        parse(text)


def hosted(**named) -> nn.Module:
    """A Llama with stirred adapters."""
    host = host_of("llama")
    for seed, (name, part) in enumerate(named.items()):
        new = part.attach(host, name, seed)
        with torch.no_grad():
            for key, parameter in host.named_parameters():
                if key in new:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return host


def under(host: nn.Module, composition: str) -> torch.Tensor:
    book = adapters_of(host)
    assert book is not None
    book.activate(composition)
    with torch.no_grad():
        return CASE.run(host)


SIDE = Parallel(host="h", size=4, layers=[-1])
LORA = Lora(host="h", rank=2, sites="layers.*.mlp.down", layers=[-1])


def test_parallel_averages_and_stacks_on_one_site():
    host = hosted(a=SIDE, b=SIDE, c=LORA)
    bare, a, b = under(host, ""), under(host, "a"), under(host, "b")
    assert not torch.equal(a, bare) and not torch.equal(a, b)
    # Both read what the MLP reads, so that here one after the other is the same as side by side.
    torch.testing.assert_close(under(host, "stack(a, b)"), under(host, "parallel(a, b)"), rtol=1e-5, atol=1e-6)
    same = under(host, "average(a, b, weights=[1, 0])")
    torch.testing.assert_close(same, a, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(under(host, "average(a, b)"), under(host, "average(a, b, weights=[3, 1])"))
    assert torch.equal(under(host, ""), bare)


def test_split_gives_each_stretch_of_tokens_its_adapter_and_batch_split_each_row():
    host = hosted(a=SIDE, b=SIDE)
    a, b = under(host, "a"), under(host, "b")
    tokens = under(host, "split(a, b, at=[3])")
    torch.testing.assert_close(tokens, torch.cat([a[:, :3], b[:, 3:]], 1), rtol=1e-5, atol=1e-6)
    rows = under(host, "batch_split(a, b, at=[1])")
    torch.testing.assert_close(rows, torch.cat([a[:1], b[1:]]), rtol=1e-5, atol=1e-6)


def test_a_fusion_of_equal_adapters_is_that_adapter():
    host = hosted(a=SIDE, b=SIDE)
    book = adapters_of(host)
    book.modules["b"].load_state_dict(book.modules["a"].state_dict())
    Fusion(host="h").attach(host, "mix", 3, composition="fuse(a, b, by=mix)")
    torch.testing.assert_close(under(host, "fuse(a, b, by=mix)"), under(host, "a"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("top", [0, 1, 2])
def test_loras_under_a_router_are_computed_at_once_as_they_are_apart(top, monkeypatch):
    host = hosted(a=LORA, b=Lora(host="h", rank=3, sites="layers.*.mlp.down", layers=[-1]), c=LORA)
    composition = "route(a, b, c, by=gate)"
    Router(host="h", top=top).attach(host, "gate", 5, composition=composition)
    joint = under(host, composition)
    monkeypatch.setattr("assembler.adapters.compose.alike", lambda children: [])
    torch.testing.assert_close(under(host, composition), joint, rtol=1e-5, atol=1e-6)


def test_a_router_of_one_is_its_adapter_and_learns_alone():
    host = hosted(a=LORA)
    Router(host="h", balance=0.1).attach(host, "gate", 5, composition="route(a, by=gate)")
    torch.testing.assert_close(under(host, "route(a, by=gate)"), under(host, "a"), rtol=1e-5, atol=1e-6)


def test_an_adapter_comes_and_goes_while_the_others_stay():
    host = hosted(a=SIDE, b=LORA)
    book = adapters_of(host)
    both, b = under(host, "stack(a, b)"), under(host, "b")
    book.activate("stack(a, b)")
    book.remove("a")
    with torch.no_grad():
        assert torch.equal(CASE.run(host), b) and not torch.equal(b, both)
    assert book.names == ["b"] and book.active == "stack(b)"


@pytest.mark.parametrize(
    ("composition", "said"),
    [
        ("stack(a, z)", "has no adapter z"),
        ("parallel(a, wide)", "wide changes the call itself and not a value that can be added, so it cannot stand in"),
        ("fuse(a, c, by=b)", "b combines nothing"),
        ("stack(a, mix)", "mix combines others; write it as by=mix"),
        ("split(split(a, b, at=[1]), c, at=[2])", "cuts one axis twice"),
        ("fuse(batch_split(a, b, at=[1]), c, by=mix)", "would combine rows that differ"),
    ],
)
def test_blocks_that_do_not_nest_are_refused_and_the_host_stays(composition, said):
    host = hosted(a=SIDE, b=LORA, c=SIDE, wide=Prefix(host="h", length=2))
    Fusion(host="h").attach(host, "mix", 3, composition="fuse(a, c, by=mix)")
    before = under(host, "stack(a, b)")
    with pytest.raises(AssemblerError, match=re.escape(said)):
        adapters_of(host).activate(composition)
    with torch.no_grad():
        assert torch.equal(CASE.run(host), before)


LM = {"type": "backbone.causal_lm", "arch": "llama", "config": {"vocab_size": 300}, "prompt": "{q} {answer}"}
TWO = {name: {"type": "adapter.parallel", "host": "talk"} for name in "ab"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"compose": {"tolk": "stack(a, b)"}}, "compose: there is no node tolk; did you mean talk?"),
        ({"compose": {"talk": "stack(a, c)"}}, "compose.talk: stack(a, c): talk has no adapter c"),
        ({"compose": {"talk": "stack(a"}}, "compose.talk: 'stack(a' is no composition"),
        (
            {"adapters": {**TWO, "mix": {"type": "adapter.fusion", "host": "talk"}}},
            "adapters.mix: it combines others and stands in no composition",
        ),
    ],
)
def test_the_check_of_a_spec_says_what_does_not_compose(more, said):
    messages = [problem.message for problem in graph_of({"nodes": {"talk": LM}, "adapters": TWO, **more}).problems]
    assert any(message.startswith(said) for message in messages), messages
