"""MixDA: a gate that gives the MLP all of the share is the host, and the loss that pulls it back there."""

import pytest
import torch
from torch import nn

from assembler.adapters.book import adapters_of
from components.adapters.domain_adapter import DomainAdapter
from components.adapters.mixda import Mixda
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["bert"]
FUSE = "fuse(one, two, by=gate)"


def mixed(**options) -> tuple[nn.Module, list]:
    host = host_of("bert")
    for name in ("one", "two"):
        for key in DomainAdapter(host="h", reduction=4).attach(host, name, seed=len(name)):
            nn.init.normal_(host.get_parameter(key), std=0.3, generator=torch.Generator().manual_seed(len(key)))
    Mixda(host="h", inner=6, dropout=0, **options).attach(host, "gate", 0, composition=FUSE)
    adapters_of(host).activate(FUSE)
    return host, [insert.module for insert in adapters_of(host).inserts("gate").values()]


@torch.no_grad()
def favour(modules: list, option: int) -> None:
    for module in modules:
        module.gate[-1].weight.zero_()
        module.gate[-1].bias.copy_(torch.full((3,), -1e4).index_fill(0, torch.tensor([option]), 1e4))


@torch.no_grad()
def shown(host: nn.Module) -> torch.Tensor:
    return CASE.run(host)


@pytest.mark.parametrize("reads", ["last", "first", "token"])
def test_with_all_of_the_share_the_mlp_is_the_hosts_bit_for_bit(reads):
    host, modules = mixed(reads=reads)
    assert not torch.equal(shown(host), shown(host_of("bert")))
    favour(modules, 0)
    assert torch.equal(shown(host), shown(host_of("bert")))


def test_a_row_has_one_gate_unless_each_token_has_its_own():
    for reads, tokens in (("last", 1), ("first", 1), ("token", 5)):
        _, modules = mixed(reads=reads)
        shares = modules[0].shares(torch.randn(2, 5, 24))
        assert shares.shape == (2, tokens, 3)
        torch.testing.assert_close(shares.sum(-1), torch.ones(2, tokens))


def test_the_first_stage_pulls_the_mixture_back_to_the_host():
    host, modules = mixed(reads="token")
    host.requires_grad_(False).train()
    mine = [p.requires_grad_(True) for p in adapters_of(host).modules.parameters()]
    bare = shown(host_of("bert"))
    before, optimizer = (shown(host.eval()) - bare).norm(), torch.optim.Adam(mine, lr=0.02)
    host.train()
    for _ in range(60):
        optimizer.zero_grad()
        CASE.run(host)
        torch.stack([module.auxiliary_loss for module in modules]).sum().backward()
        optimizer.step()
    assert (shown(host.eval()) - bare).norm() < 0.3 * before


def test_only_rows_of_old_text_count_in_the_distance():
    host, modules = mixed()
    host.train()
    wire, losses = adapters_of(host).wires("gate")["old"], []
    for rows in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]):
        wire.lay(torch.tensor(rows))
        CASE.run(host)
        losses.append(modules[0].auxiliary_loss.item())
    assert losses[2] == pytest.approx((losses[0] + losses[1]) / 2, rel=1e-4)
    assert losses[3] == 0 and losses[0] != losses[1]
