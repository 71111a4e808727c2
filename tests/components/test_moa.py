"""MoA: gates that do not compete, experts that are dropped below a threshold, and the counts of its paper's model."""

import torch
from torch import nn

from assembler.adapters.book import adapters_of
from components.adapters._moa import Router
from components.adapters.moa import Moa
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["llama"]


def moa(**options) -> tuple[nn.Module, list[str]]:
    host = host_of("llama")
    return host, Moa(host="h", rank=2, size=4, factor=1, **options).attach(host, "tune", seed=0)


def test_a_threshold_of_zero_is_the_soft_mixture_without_the_prompt_bit_for_bit():
    soft, sparse = (moa(prompts=2)[0], moa(sparse=True, most=0)[0])
    routers = [[m for m in adapters_of(host).modules.modules() if isinstance(m, Router)] for host in (soft, sparse)]
    with torch.no_grad():
        for one, two in zip(*routers, strict=True):
            for linear in (one.output, two.output):
                linear.weight.zero_()
                linear.bias.copy_(torch.linspace(-1, 1, 7)[: len(linear.bias)])
        ours = [dict(adapters_of(host).modules.named_parameters()) for host in (soft, sparse)]
        for name, parameter in ours[1].items():
            if "router" not in name:
                parameter.normal_(std=0.1)
                ours[0][name].copy_(parameter)
        assert torch.equal(CASE.run(soft), CASE.run(sparse))
        assert not torch.equal(CASE.run(soft), CASE.run(host_of("llama")))


def test_experts_below_the_tokens_threshold_are_dropped_and_others_keep_their_gate():
    torch.manual_seed(0)
    router, x = Router(8, 5, 2, most=1.0), torch.randn(2, 6, 8)
    plain = Router(8, 5, 2, most=None)
    plain.load_state_dict({k: v for k, v in router.state_dict().items() if "threshold" not in k})
    with torch.no_grad():
        gates, all_gates, threshold = router(x), plain(x), router.threshold(x).sigmoid()
    assert torch.equal(gates, torch.where(all_gates >= threshold, all_gates, 0))
    assert 0 < int((gates == 0).sum()) < gates.numel()


def test_the_threshold_learns_though_it_is_a_step():
    router = Router(8, 5, 2, most=0.5)
    router(torch.randn(2, 6, 8)).sum().backward()
    assert router.threshold.weight.grad.any()


def test_gates_come_to_differ_by_the_kind_of_token():
    torch.manual_seed(0)
    router = Router(4, 2, 4, most=None)
    kinds = torch.tensor([[[1.0, 0, 0, 0]] * 4, [[0, 1.0, 0, 0]] * 4])
    goal = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, None]
    optimizer = torch.optim.Adam(router.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        (router(kinds) - goal).pow(2).mean().backward()
        optimizer.step()
    assert (router(kinds) - goal).abs().max() < 0.1
