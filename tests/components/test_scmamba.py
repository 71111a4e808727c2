"""scMamba: its recurrence, its two directions, its count, and what it learns by guessing hidden values."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.check import check
from assembler.compile import compile_graph
from assembler.spec import Document, Spec
from components.encoders import _selective_scan
from components.encoders._scmamba import Mixer
from components.encoders._selective_scan import selective_scan, stepwise


def graph_of(genes: int, stages: list | None = None, **knobs):
    nodes = {
        "cell": {"type": "input.expression", "genes": [f"G{i}" for i in range(genes)], "normalise": "none"},
        "reads": {"type": "encoder.scmamba", **knobs},
    }
    tree = {"assembler": 1, "nodes": nodes, "edges": ["cell -> reads"], "stages": stages or []}
    return check(Spec(Path("cells.yaml").resolve(), Document.model_validate(tree), tree))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 50), st.integers(0, 2**31))
def test_the_scan_and_its_gradients_are_those_of_the_loop(length, batch, steps, seed):
    """However many steps a chunk has."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, dt, b, c = draw(length, 2, batch, 5), draw(length, 2, batch, 5).exp(), draw(length, 2, batch, 3), None
    c, a, weight = draw(length, 2, batch, 3), -draw(2, 1, 5, 3).exp(), draw(length, 2, batch, 5)
    given_to = [[t.clone().requires_grad_() for t in (x, dt, a, b, c)] for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_selective_scan, "LONGEST", steps)
        outs = [scan(*inputs) for scan, inputs in zip((selective_scan, stepwise), given_to, strict=True)]
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-9, atol=1e-9)
    for out in outs:
        (out * weight).sum().backward()
    for ours, theirs in zip(*given_to, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-7)


def test_a_cell_read_backwards_with_the_directions_swapped_comes_out_backwards():
    torch.manual_seed(0)
    mixer = Mixer(8, 16, 4)
    x = torch.randn(2, 13, 8)
    with torch.no_grad():
        ahead = mixer(x)
        mixer.ahead, mixer.back = mixer.back, mixer.ahead
        torch.testing.assert_close(mixer(x.flip(1)).flip(1), ahead, rtol=1e-5, atol=1e-6)


def test_the_published_pretraining_model_has_the_papers_layout():
    """d = 256, 6 blocks, a vocabulary of 20,311 genes padded to 20,312, as its repository's config says."""
    assembly = compile_graph(graph_of(20_311, pretrain=True), device="meta")
    sizes = {key: p.numel() for key, p in assembly.named_parameters()}
    block = sum(size for key, size in sizes.items() if key.startswith("nodes.reads.layers.0."))
    assert block == 482_560
    assert sum(sizes.values()) == 8_096_513


def test_it_learns_to_guess_hidden_values_better_than_by_their_mean():
    torch.manual_seed(0)
    graph = graph_of(24, width=32, depth=1, state=4, pretrain=True)
    assembly = compile_graph(graph)
    assembly.train_only(["reads"])
    assembly.only(["reads"])
    assembly.train()
    kinds = torch.rand(4, 24) * 3 + 0.5  # four kinds of cell: a gene's value tells those of the others
    optimizer = torch.optim.AdamW(assembly.parameters(), lr=8e-3)
    losses, blind = [], []
    for _ in range(200):
        cells = kinds[torch.randint(0, 4, (16,))]
        loss = assembly(cell=cells)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        blind.append((cells - kinds.mean(0)).square().mean().item())
    assert sum(losses[-20:]) < 0.5 * sum(blind[-20:])


def test_no_value_is_hidden_unless_a_stage_asks_for_it():
    torch.manual_seed(0)
    assembly = compile_graph(graph_of(12, width=16, depth=1, pretrain=True))
    assembly.train_only(["reads"])
    assembly.train()
    cells = torch.rand(3, 12) + 0.5
    with torch.no_grad():
        assert torch.equal(assembly(cell=cells)["output"], assembly(cell=cells)["output"])
        assembly.only(["reads"])
        assert "loss" in assembly(cell=cells)


@pytest.mark.parametrize(("pretrain", "sentence"), [(True, None), (False, "gives no loss; set `pretrain: true` there")])
def test_a_stage_that_names_an_encoder_without_pretraining_is_refused(pretrain, sentence):
    stage = {"name": "mask", "train": ["reads"], "objectives": ["reads"]}
    found = [problem.message for problem in graph_of(12, [stage], width=16, pretrain=pretrain).problems]
    assert any(sentence in message for message in found) if sentence else not any("gives no loss" in m for m in found)
