"""SparseAdapter: as many live weights as the density says, chosen once, whatever training does."""

import pytest
import torch
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.adapters.prepare import Trial
from assembler.errors import AssemblerError
from components.adapters._sparse_adapter import Mask
from components.adapters.sparse_adapter import HOULSBY, SparseAdapter
from tests.components.test_shira import Loss, goal_loss
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["bert"]


def sparse(score: str = "random", density: float = 0.25, **adapter) -> tuple[nn.Module, SparseAdapter]:
    host = host_of("bert")
    part = SparseAdapter(host="h", score=score, density=density, adapter={**HOULSBY, "size": 8, **adapter})
    part.attach(host, "tune", seed=0)
    return host.requires_grad_(False), part


def masks(host: nn.Module) -> list[torch.Tensor]:
    return [m.mask for m in adapters_of(host).modules.modules() if isinstance(m, Mask)]


def prepared(score: str, **adapter) -> nn.Module:
    host, part = sparse(score, **adapter)
    part.prepare(Trial(host, "tune", None, lambda: [CASE.batch], Loss(host, "last_hidden_state")))
    return host


def live(host: nn.Module) -> int:
    return sum(int(mask.sum()) for mask in masks(host))


def test_a_wider_adapter_of_lower_density_has_as_many_live_weights():
    assert live(sparse(density=0.25, size=32)[0]) == live(sparse(density=1.0, size=8)[0]) == 2 * 2 * 2 * 16 * 8


@pytest.mark.parametrize("score", ["snip", "grasp", "magnitude", "synflow", "random"])
def test_what_is_masked_out_stays_out_through_training(score):
    host = prepared(score) if score in ("snip", "grasp") else sparse(score)[0]
    before = [mask.clone() for mask in masks(host)]
    assert live(host) == round(0.25 * 2 * 2 * 2 * 16 * 8)
    mine = [p.requires_grad_(True) for p in adapters_of(host).modules.parameters()]
    dead = [m.original.detach().clone() for m in lists(host)]
    optimizer = torch.optim.SGD(mine, lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        goal_loss(CASE.run(host)).backward()
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, masks(host), strict=True))
    for module, old, mask in zip(lists(host), dead, before, strict=True):
        assert torch.equal(module.original[~mask], old[~mask])
        assert not torch.equal(module.original[mask], old[mask])


def lists(host: nn.Module) -> list:
    return [m for m in adapters_of(host).modules.modules() if type(m).__name__ == "ParametrizationList"]


def test_snip_keeps_the_largest_of_weight_times_gradient_over_all_matrices():
    host = prepared("snip")
    weights = [m.original.requires_grad_(True) for m in lists(host)]
    kept = torch.cat([mask.flatten() for mask in masks(host)])
    for mask in masks(host):
        mask.fill_(True)
    loss = goal_loss(CASE.run(host))
    gradients = torch.autograd.grad(loss, weights)
    scores = torch.cat([(w * g).abs().flatten() for w, g in zip(weights, gradients, strict=True)])
    assert scores[kept].min() >= scores[~kept].max()


@pytest.mark.parametrize("score", ["snip", "synflow"])
def test_a_matrix_that_starts_at_zero_leaves_nothing_to_rank_by(score):
    with pytest.raises(AssemblerError, match="every score is the same"):
        prepared(score, init="zero") if score == "snip" else sparse(score, init="zero")


@pytest.mark.parametrize("inside", [{"type": "adapter.prefix"}, {"type": "adapter.sparse_adapter"}, {"type": "lora"}])
def test_what_is_no_plain_change_of_values_cannot_stand_inside(inside):
    with pytest.raises(ValueError, match="can stand inside"):
        SparseAdapter(host="h", adapter=inside)
