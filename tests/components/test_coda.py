"""CoDA: few tokens pass the frozen layer, and which is learned by a soft top-k."""

import pytest
import torch

from assembler.adapters.book import adapters_of
from assembler.adapters.tap import first_of
from components.adapters._bottleneck import Bottleneck
from components.adapters._coda import Conditional, soft_top_k
from components.adapters.coda import Coda
from tests.conformance.hosts import HOSTS, host_of


class Mask:
    mask = None


class NoMask:
    module = Mask()


def test_the_soft_top_k_is_near_the_hard_one_and_sums_to_k():
    torch.manual_seed(0)
    scores = torch.randn(8, 64, requires_grad=True)
    chances = soft_top_k(scores, 16, steps=50, eps=0.1)
    assert (chances >= 0).all() and (chances <= 1 + 1e-5).all()
    assert ((chances.sum(-1) > 15) & (chances.sum(-1) < 16.01)).all()
    for soft, hard in zip(chances.topk(16).indices, scores.topk(16).indices, strict=True):
        assert set(soft.tolist()) == set(hard.tolist())
    (chances * torch.randn(64)).sum().backward()
    assert scores.grad.any()


@torch.no_grad()
def test_with_all_tokens_it_is_the_dense_layer_and_the_adapter():
    host, case = host_of("vit"), HOSTS["vit"]
    Coda(host="host", size=4, reduction=1).attach(host, "tune", seed=0)
    torch.testing.assert_close(case.run(host), case.run(host_of("vit")), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_layer_sees_the_chosen_tokens_alone_and_the_others_pass_the_adapter():
    torch.manual_seed(0)
    seen, adapter = [], Bottleneck(6, 3, "relu", "bert")
    layer = Conditional(6, adapter, 3, 20, 0.05, NoMask())
    x = torch.randn(2, 9, 6)

    def call(few: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((few, mask))
        return few + 10

    y = layer(call, x, torch.arange(81.0).reshape(1, 1, 9, 9))
    assert seen[0][0].shape == (2, 3, 6) and seen[0][1].shape == (2, 1, 3, 3)
    light = x + adapter(layer.norm(x))
    moved = (y - light).abs().amax(-1) > 1e-4
    assert (moved.sum(1) == 3).all()
    for row in range(2):
        places = (x @ layer.router)[row].topk(3).indices
        assert set(moved[row].nonzero().flatten().tolist()) == set(places.tolist())
        order = [x[row].eq(few).all(-1).nonzero().item() for few in seen[0][0][row]]
        assert torch.equal(seen[0][1][row, 0], torch.arange(81.0).reshape(9, 9)[order][:, order])


@pytest.mark.parametrize(("family", "path"), [("vit", "layers.0"), ("timm", "blocks.0"), ("bert", "encoder.layer.0")])
@torch.no_grad()
def test_with_keys_of_all_tokens_the_chosen_ones_get_what_the_dense_layer_gives_them(family, path):
    host, bare, seen = host_of(family), host_of(family), []
    Coda(host="host", size=4, reduction=2, attends="all", layers=[0]).attach(host, "tune", seed=0)
    for one in (host, bare):
        one.get_submodule(path).register_forward_hook(lambda m, args, output: seen.append((args[0], first_of(output))))
        HOSTS[family].run(one)
    (x, mixed), (_, dense) = seen
    inserts = adapters_of(host).inserts("tune").values()
    module = next(insert.module for insert in inserts if isinstance(insert.module, Conditional))
    chances = module._chances(x, 3)  # of five tokens
    chosen, rows = chances.topk(3).indices, torch.arange(2)[:, None]
    share, few = chances.gather(1, chosen).unsqueeze(-1), x[rows, chosen]
    torch.testing.assert_close(mixed[rows, chosen], few + share * (dense[rows, chosen] - few), rtol=1e-4, atol=1e-5)
