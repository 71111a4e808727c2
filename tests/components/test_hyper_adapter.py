"""Hyper-adapters: what is written keeps its size as the network widens, and is a bottleneck like any other."""

import pytest
import torch
from torch.nn import functional as F

from assembler.adapters.book import adapters_of
from components.adapters._hyper import bottleneck_shapes
from components.adapters._hyper_adapter import Generator
from components.adapters.hyper_adapter import HyperAdapter
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["bert"]


def spread(width: int, rescale: bool) -> float:
    torch.manual_seed(0)
    shapes = bottleneck_shapes(32, 16, norm=False)
    generator = Generator(4, 2, 8, width, 1, shapes, dict.fromkeys(shapes, 1.0), rescale)
    with torch.no_grad():
        return generator(torch.tensor([1]), torch.tensor([2]), 0)["down"].std().item()


def test_the_rescaled_weights_do_not_grow_with_the_network():
    plain, scaled = ([spread(width, rescale) for width in (64, 256, 1024)] for rescale in (False, True))
    assert plain[2] > 2.5 * plain[0]
    assert max(scaled) < 1.3 * min(scaled)


@pytest.mark.parametrize("norm", [False, True])
def test_what_is_written_is_a_bottleneck_with_these_weights(norm):
    host = host_of("bert")
    HyperAdapter(host="h", languages=3, size=4, width=8, norm=norm, std=None).attach(host, "tune", seed=0)
    module = next(iter(adapters_of(host).inserts("tune").values())).module
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        weights = {key: tensor[0] for key, tensor in module.generator(torch.tensor([0]), torch.tensor([0]), 0).items()}
        normed = F.layer_norm(x, (16,))
        if norm:
            normed = normed * (1 + weights["gain"]) + weights["shift"]
        inner = F.linear(normed, weights["down"], weights["down_bias"]).relu()
        torch.testing.assert_close(module(x), F.linear(inner, weights["up"], weights["up_bias"]))


def test_each_row_has_the_adapter_of_its_languages():
    host = host_of("bert")
    HyperAdapter(host="h", languages=3, size=4, width=8, std=None).attach(host, "tune", seed=0)
    wires, out = adapters_of(host).wires("tune"), {}
    for source, target in ((0, 1), (2, 1), (2, 0)):
        wires["source"].lay(torch.tensor([source]))
        wires["target"].lay(torch.tensor([target]))
        with torch.no_grad():
            out[source, target] = CASE.run(host)
    wires["source"].lay(torch.tensor([0, 2]))
    wires["target"].lay(torch.tensor([1, 0]))
    with torch.no_grad():
        both = CASE.run(host)
    torch.testing.assert_close(both[0], out[0, 1][0])
    torch.testing.assert_close(both[1], out[2, 0][1])
    assert not torch.allclose(out[0, 1], out[2, 1]) and not torch.allclose(out[2, 1], out[2, 0])
