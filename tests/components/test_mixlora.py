"""MixLoRA: the dense form against the loop over experts, and what the balance loss does."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assembler.adapters.book import adapters_of
from components.adapters._mixlora import Router, balance
from components.adapters.mixlora import MixLora
from tests.conformance.hosts import HOSTS, host_of


def experts_on(host: nn.Module, **options) -> list:
    MixLora(host="host", experts=4, rank=2, attention="", dropout=0, **options).attach(host, "tune", seed=0)
    return [insert.module for insert in adapters_of(host).inserts("tune").values()]


def looped(module, mlp, x):
    """The sum over experts as it is usually written: each on the tokens that go to it."""
    chances = module.router.gate(x).softmax(-1)
    top, order = chances.topk(2, -1)
    top = top / top.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    weights = {"gate": mlp.gate_proj.weight, "up": mlp.up_proj.weight, "down": mlp.down_proj.weight}
    for i in range(4):
        token, rank = torch.where(order == i)
        own = {n: w + module.scale * module.experts[f"{n}_low"].b[i] @ module.experts[f"{n}_low"].a[i]
               for n, w in weights.items()}  # fmt: skip
        if module.experts["up_low"].weight is not None:
            norms = {n: module.experts[f"{n}_low"].magnitude[i] / w.norm(dim=1) for n, w in own.items()}
            own = {n: norms[n][:, None] * w for n, w in own.items()}
        inner = F.silu(x[token] @ own["gate"].T) * (x[token] @ own["up"].T)
        out.index_add_(0, token, top[token, rank].unsqueeze(-1) * (inner @ own["down"].T))
    return out


@pytest.mark.parametrize("dora", [False, True])
def test_the_dense_form_is_the_loop_over_experts(dora):
    host = host_of("llama")
    module = experts_on(host, dora=dora)[0]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.2)
        x = torch.randn(12, 16)
        dense = module(None, x[None])[0]
        torch.testing.assert_close(dense, looped(module, host.model.layers[0].mlp, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"top_p": 0.5}, {"dora": True}])
def test_untrained_it_is_the_frozen_mlp_up_to_rounding(options):
    host, case = host_of("llama"), HOSTS["llama"]
    experts_on(host, **options)
    with torch.no_grad():
        torch.testing.assert_close(case.run(host), case.run(host_of("llama")), rtol=1e-5, atol=1e-6)


def test_top_p_keeps_the_fewest_experts_that_reach_it():
    router = Router(3, 4, 1, 0.7)
    with torch.no_grad():
        router.gate.weight.copy_(torch.tensor([[5.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]]))
    weights, chosen, _ = router(torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]))
    assert chosen[0].sum(-1).tolist() == [1, 2]
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2))


def test_a_full_expert_takes_no_more_and_weights_may_stay_as_they_are():
    router = Router(2, 2, 1, None, normalise=False, capacity=1.0)
    with torch.no_grad():
        router.gate.weight.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 0], [1.0, 0], [2.0, 0], [0, 1.0]])
    weights, _, scores = router(x[None])
    kept = scores.softmax(-1) * torch.tensor([[1.0, 0], [1, 0], [0, 0], [0, 1]])  # two of four tokens each
    torch.testing.assert_close(weights, kept)


def test_with_the_balance_loss_the_experts_are_used_more_evenly():
    def spread(coefficient: float) -> float:
        torch.manual_seed(0)
        router, x = Router(8, 4, 1, None), torch.randn(256, 8) + 0.5
        with torch.no_grad():
            router.gate.weight[0] += 0.3
        optimizer = torch.optim.SGD(router.parameters(), lr=1.0)
        for _ in range(100):
            optimizer.zero_grad()
            _, chosen, scores = router(x)
            task = 0.02 * (scores[:, 0] - 2).pow(2).mean()  # the task alone would keep them at one expert
            (task + coefficient * balance(chosen, scores)).backward()
            optimizer.step()
        return router(x)[1].float().mean(0).std().item()

    assert spread(1.0) < 0.5 * spread(0.0)


def test_its_loss_is_added_in_training_and_not_when_it_serves():
    host, case = host_of("llama"), HOSTS["llama"]
    modules = experts_on(host, balance=0.5, z_loss=0.1)
    case.run(host)
    assert all(module.auxiliary_loss is None for module in modules)
    host.train()
    case.run(host)
    assert all(module.auxiliary_loss.item() > 0.5 for module in modules)
