"""GLoRA: every path of the supernet, its budget, the search, and PEFT's form of it."""

import itertools
import random

import peft
import torch
from torch import nn

from assembler.adapters.book import adapters_of
from components.adapters._glora import KINDS, SUPERNET, Glora, Path, Search
from components.adapters.glora import Glora as Part
from tests.conformance.hosts import host_of


def stirred(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


def test_every_one_of_the_432_paths_gives_the_shape_and_counts_its_own_tensors():
    paths = [Path(*kinds) for kinds in itertools.product(*KINDS)]
    assert len(set(paths)) == 432
    net = stirred(Glora((5, 7), True, 2, SUPERNET, True)).eval()
    weight, bias = torch.randn(5, 7), torch.randn(5)
    sizes = {"a": (5, 7), "b": (5, 7), "c": (7, 1), "d": (5, 1), "e": (5, 1)}
    for path in paths:
        net.path = path
        changed, shift = net(weight, bias)
        assert changed.shape == (5, 7) and shift.shape == (5,)
        alone = Glora((5, 7), True, 2, path, False)
        by_hand = sum(
            {"low_rank": 2 * sum(sizes[n]), "vector": sizes[n][0], "scalar": 1, "none": 0}[kind]
            for n, kind in path._asdict().items()
        )
        assert net.size(path) == by_hand == sum(p.numel() for p in alone.parameters())


def test_a_smaller_path_is_the_start_of_the_supernets_tensors():
    net = stirred(Glora((5, 7), True, 2, Path("vector", "scalar", "none", "scalar", "vector"), True)).eval()
    weight, bias = torch.randn(5, 7), torch.randn(5)
    changed, shift = net(weight, bias)
    torch.testing.assert_close(changed, weight * (1 + net.a_down[:, :1]) + net.b_down[0, 0])
    torch.testing.assert_close(shift, bias * (1 + net.d_down[0, 0]) + net.e_down[:, 0])


def test_the_supernet_draws_paths_in_training_and_none_when_it_serves():
    net = stirred(Glora((5, 7), True, 2, SUPERNET, True))
    weight, bias = torch.randn(5, 7), torch.randn(5)
    random.seed(0)
    drawn = {net.train()(weight, bias)[0].sum().item() for _ in range(8)}
    served = {net.eval()(weight, bias)[0].sum().item() for _ in range(3)}
    assert len(drawn) > 4 and len(served) == 1


def test_its_weight_and_bias_are_those_of_peft():
    net = stirred(Glora((5, 7), True, 3, SUPERNET, False))
    linear = nn.Linear(7, 5)
    config = peft.GloraConfig(r=3, target_modules=["0"], config_A_B="lora", config_C="lora", config_D_E="vector")
    other = peft.get_peft_model(nn.Sequential(linear), config)
    layer = other.base_model.model[0]
    with torch.no_grad():
        for name in "abc":
            path = getattr(layer, f"glora_{name.upper()}")["default"]
            path.Xd.copy_(getattr(net, f"{name}_down"))
            path.Xu.copy_(getattr(net, f"{name}_up"))
        for name in "de":
            getattr(layer, f"glora_{name.upper()}")["default"].X.copy_(getattr(net, f"{name}_down")[:, 0])
        x = torch.randn(4, 7)
        ours = nn.functional.linear(x, *net(linear.weight, linear.bias))
        torch.testing.assert_close(ours, other(x), rtol=1e-5, atol=1e-5)


def test_the_search_keeps_to_its_budget_and_finds_the_path_that_scores_best():
    host = host_of("llama")
    Part(host="host", sites="layers.*.attn.q", rank=2, supernet=True).attach(host, "tune", seed=0)
    modules = {key: insert.module for key, insert in adapters_of(host).inserts("tune").items()}

    def score() -> float:
        """Vectors for A in every layer, and nothing else."""
        return -sum(m.path.a != "vector" for m in modules.values()) - 0.01 * sum(
            kind != "none" for m in modules.values() for kind in m.path[1:2]
        )

    search = Search(modules, score, budget=40, population=12, mutations=12, crossovers=6, parents=4)
    found = search.run(epochs=6)
    assert [path.a for path in found.values()] == ["vector", "vector"]
    assert search.size(tuple(found.values())) <= 40
    assert all(m.path == found[key] and not m.supernet for key, m in modules.items())
