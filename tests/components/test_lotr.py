"""LoTR: what the layers share, and what they add to it."""

import pytest
import torch

from assembler.adapters.book import adapters_of
from components.adapters._lotr import tucker
from components.adapters.lotr import Lotr
from tests.conformance.hosts import HOSTS, host_of


def sized(**options) -> int:
    host = host_of("llama")
    names = Lotr(host="host", sites="layers.*.attn.q", rank=3, **options).attach(host, "tune", seed=0)
    return sum(host.get_parameter(name).numel() for name in names)


def test_one_more_layer_costs_one_more_core():
    assert sized() - sized(layers=[0]) == 3 * 3
    assert sized(layers=[0]) == 3 * (16 + 16) + 3 * 3
    assert sized(cores_only=True) == 2 * 3 * 3


def test_the_outer_factors_are_one_tensor_and_one_entry_of_the_optimiser():
    host = host_of("llama").requires_grad_(False)
    Lotr(host="host", sites="layers.*.attn.q", rank=3).attach(host, "tune", seed=0)
    first, second = [insert.module for insert in adapters_of(host).inserts("tune").values()]
    assert first.factors.module.left is second.factors.module.left
    learning = [p for p in host.parameters() if p.requires_grad]
    assert len(learning) == len({id(p) for p in learning}) == 4


@pytest.mark.parametrize("init", ["normal", "identity", "tucker"])
def test_each_way_to_start_is_the_identity(init):
    host, case = host_of("llama"), HOSTS["llama"]
    Lotr(host="host", rank=2, init=init).attach(host, "tune", seed=0)
    with torch.no_grad():
        assert torch.equal(case.run(host), case.run(host_of("llama")))


def test_tuckers_factors_span_weights_of_low_rank_whole():
    left, right = torch.randn(9, 3), torch.randn(3, 7)
    weights = [left @ torch.randn(3, 3) @ right for _ in range(4)]
    found_left, found_right = tucker(weights, 3)
    for weight in weights:
        core = found_left.T @ weight @ found_right.T
        torch.testing.assert_close(found_left @ core @ found_right, weight, rtol=1e-3, atol=1e-3)
