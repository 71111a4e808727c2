"""scMamba: its recurrence, its two directions, its count, and what it learns by guessing hidden values."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from assembler import features
from assembler.batches import Batches, split
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.ragged import parted
from assembler.spec import Document, Spec
from components.encoders import _selective_scan
from components.encoders._scmamba import Mixer
from components.encoders._selective_scan import selective_scan, stepwise

CELLS = Path(__file__).parents[2] / "components" / "datasets" / "example" / "cells.h5ad"


def graph_of(genes: int, stages: list | None = None, seed: int = 0, **knobs):
    nodes = {
        "cell": {"type": "input.expression", "genes": [f"G{i}" for i in range(genes)], "normalise": "none"},
        "reads": {"type": "encoder.scmamba", **knobs},
    }
    tree = {"assembler": 1, "seed": seed, "nodes": nodes, "edges": ["cell -> reads"], "stages": stages or []}
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
    assembly.only(["reads"])
    assembly.train_only(["reads"])
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


def learned(folder: Path, **knobs) -> dict[str, torch.Tensor]:
    """A file of what a small encoder has learned, and its tensors."""
    state = compile_graph(graph_of(12, seed=1, width=16, depth=1, **knobs)).nodes["reads"].state_dict()
    save_file(state, folder / "learned.safetensors")
    return state


@pytest.mark.parametrize(
    ("kept", "wanted"),
    [
        ({"pretrain": True}, {"output": "pooled"}),
        ({"pretrain": True}, {"mix": True}),
        ({"output": "pooled"}, {"pretrain": True}),
        ({"pretrain": True, "output": "pooled"}, {}),
        ({"output": "pooled"}, {"output": "pooled", "pretrain": True}),
    ],
)
def test_what_was_learned_one_way_is_read_another(kept, wanted, tmp_path):
    state = learned(tmp_path, **kept)
    source = {"weights": f"file:{tmp_path / 'learned.safetensors'}"}
    modules = [compile_graph(graph_of(12, width=16, depth=1, **wanted, **source)).nodes["reads"] for _ in range(2)]
    first, again = (module.state_dict() for module in modules)
    assert all(torch.equal(first[key], state[key]) for key in first.keys() & state.keys())
    assert all(torch.equal(first[key], again[key]) and first[key].isfinite().all() for key in first)
    with torch.no_grad():
        assert parted(modules[0](torch.rand(2, 12)))[0].isfinite().all()


def test_weights_of_something_else_are_refused(tmp_path):
    save_file({"gene.bias": torch.zeros(2)}, tmp_path / "learned.safetensors")
    with pytest.raises(AssemblerError, match=r"there is no gene\.weight; give what an encoder\.scmamba has learned"):
        compile_graph(graph_of(12, width=16, depth=1, weights=f"file:{tmp_path / 'learned.safetensors'}"))


def test_stages_guess_values_then_sort_and_then_keep_what_the_frozen_encoder_gives(tmp_path, monkeypatch):
    """One spec: masked expression, then a classifier on the same pooled encoder, then that encoder frozen and kept."""
    monkeypatch.setattr(features, "features_folder", lambda: tmp_path / "features")
    stages = [
        {"name": "mask", "train": ["reads"], "objectives": ["reads"], "steps": 2, "batch": 4},
        {"name": "sort", "train": ["reads", "sort"], "objectives": ["sort"], "steps": 2, "batch": 4},
        {"name": "last", "train": ["sort"], "objectives": ["sort"], "steps": 2, "batch": 4},
    ]
    nodes = {
        "cell": {"type": "input.expression", "genes": ["CD3D", "CD14", "ACTB"]},
        "reads": {"type": "encoder.scmamba", "width": 16, "depth": 1, "pretrain": True, "output": "pooled"},
        "sort": {"type": "head.classifier", "classes": 3},
    }
    data = {"type": "dataset.h5ad", "options": {"path": str(CELLS), "label": {"label": "cell_type"}}, "held_out": 0.2}
    tree = {"assembler": 1, "nodes": nodes, "edges": ["cell -> reads", "reads -> sort"], "stages": stages, "data": data}
    graph = check(Spec(tmp_path / "cells.yaml", Document.model_validate(tree), tree)).require()
    assembly, rows = compile_graph(graph), split(graph)[0]
    kept = []
    for stage in graph.document.stages:
        assembly.only(stage.objectives)
        assembly.train_only(stage.train)
        assembly.train()
        kept.append(features.frontier(graph, assembly))
        optimizer = torch.optim.SGD([p for p in assembly.parameters() if p.requires_grad], lr=0.01)
        before = {key: p.clone() for key, p in assembly.named_parameters()}
        assembly(**Batches(graph)(list(rows[:4])))["loss"].backward()
        assert all(p.grad is not None for p in assembly.parameters() if p.requires_grad)
        optimizer.step()
        optimizer.zero_grad()
        moved = {key.split(".")[1] for key, p in assembly.named_parameters() if not torch.equal(p, before[key])}
        assert moved == set(stage.train)
    assert kept == [[], [], ["reads"]]
    assert features.kept(graph, assembly, Batches(graph), rows, 2**20, "fp32") is not None
