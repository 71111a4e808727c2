"""MoSA: disjoint parts that cover a matrix, each learning alone, and one plain adapter afterwards."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.compile import compile_graph
from components.adapters._mosa import Parts
from components.adapters.adaptformer import AdaptFormer
from components.adapters.mosa import Mosa
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_matrix import batch_of, graph_of

CASE = HOSTS["vit"]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(1, 8), st.integers(1, 8))
def test_the_parts_are_disjoint_and_cover_every_entry_evenly(count, rows, columns):
    owner = Parts(torch.randn(rows, columns), count, average=False).owner
    sizes = torch.bincount(owner.flatten().long(), minlength=count)
    assert len(sizes) == count and sizes.sum() == rows * columns
    assert sizes.max() - sizes.min() <= 1


def test_in_each_forward_of_training_one_part_takes_all_of_the_gradient():
    parts, weight = Parts(torch.zeros(6, 8), 4, average=False).train(), torch.ones(6, 8, requires_grad=True)
    torch.manual_seed(0)
    drawn = set()
    for _ in range(20):
        (gradient,) = torch.autograd.grad(parts(weight).sum(), weight)
        owners = parts.owner[gradient != 0].unique()
        assert len(owners) == 1 and int((gradient != 0).sum()) == 12
        drawn.add(int(owners))
    assert drawn == {0, 1, 2, 3}


@pytest.mark.parametrize(("merge_by", "share"), [("copy", 1.0), ("average", 0.25)])
def test_afterwards_it_computes_as_the_plain_adapter_of_its_size(merge_by, share):
    host, plain = host_of("vit"), host_of("vit")
    inside = {"type": "adapter.adaptformer", "size": 4}
    new = Mosa(host="h", adapter=inside, merge_by=merge_by).attach(host, "tune", seed=0)
    same = AdaptFormer(host="h", size=4).attach(plain, "tune", seed=0)
    assert sum(map(numel(host), new)) == sum(map(numel(plain), same))
    with torch.no_grad():
        for one, two in zip(weights(host), weights(plain), strict=True):
            learned = torch.randn_like(two) if "up" in shapes(two) else torch.zeros_like(two)
            two.add_(learned * share)
            one.add_(learned)
        torch.testing.assert_close(CASE.run(host), CASE.run(plain), rtol=1e-5, atol=1e-5)


def numel(host: nn.Module):
    return lambda key: host.get_parameter(key).numel()


def shapes(weight: torch.Tensor) -> str:
    return "up" if tuple(weight.shape) == (16, 4) else "down"


def weights(host: nn.Module) -> list[torch.Tensor]:
    """The matrices, in the order of the layers and of down before up."""
    book = adapters_of(host)
    found = []
    for insert in book.inserts("tune").values():
        module = insert.module
        up = module.up.parametrizations.weight.original if hasattr(module.up, "parametrizations") else module.up.weight
        found += [module.down.weight, up]
    return found


def test_a_stage_with_consistency_adds_the_divergence_of_two_runs():
    nodes = {
        "photo": {"type": "input.image", "size": [32, 32]},
        "eyes": {"type": "encoder.timm", "model": "test_vit", "output": "pooled"},
        "name": {"type": "head.classifier", "classes": 3},
    }
    tune = {"type": "adapter.mosa", "host": "eyes", "adapter": {"type": "adapter.adaptformer", "size": 4, "scale": 9.0}}
    graph = graph_of({"nodes": nodes, "edges": ["photo -> eyes", "eyes -> name"], "adapters": {"tune": tune}})
    assembly = compile_graph(graph)
    assembly.train_only(["tune"])
    with torch.no_grad():
        for key in assembly.of("tune"):
            assembly.get_parameter(key).normal_(std=0.3)
    batch = {**batch_of(graph, 4), "name_labels": torch.tensor([0, 1, 2, 0])}
    extra = next(key for key in batch if key.startswith("name_"))
    batch = {**batch, extra: torch.tensor([0, 1, 2, 0])}
    losses = {}
    for consistency in (0.0, 1.0, 2.0):
        assembly.train()
        assembly.consistency = consistency
        torch.manual_seed(3)
        losses[consistency] = float(assembly(**batch)["loss"])
    added = losses[1.0] - losses[0.0]
    assert added > 1e-6
    assert losses[2.0] - losses[0.0] == pytest.approx(2 * added, rel=1e-3)
    assembly.eval()
    assert float(assembly(**batch)["loss"]) == float(assembly(**batch)["loss"])
