"""KORE: what the layers read for old knowledge goes through unchanged, however much is learned."""

import pytest
import torch
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.adapters.prepare import Trial
from components.adapters.kore import Kore
from tests.components.test_shira import Loss
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_adapters import stir

CASE = HOSTS["vit"]
SITE = {"sites": "layers.0.mlp.up"}


def with_kore(variant: str, prepared: bool = True) -> tuple[nn.Module, list[str]]:
    host, part = host_of("vit").requires_grad_(False), Kore(host="h", rank=4, variant=variant, **SITE)
    new = part.attach(host, "tune", seed=0)
    if prepared:
        part.prepare(Trial(host, "tune", None, lambda: [old()], Loss(host, "last_hidden_state")))
    return host, new


def old() -> dict[str, torch.Tensor]:
    """One picture: its five tokens span five of the sixteen directions that a layer reads."""
    return {"pixel_values": CASE.batch["pixel_values"][:1]}


@torch.no_grad()
def moved(host: nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """How far the host's output is from the bare host's, over its size."""
    bare = CASE.out(host_of("vit")(**batch))
    return float((CASE.out(host(**batch)) - bare).norm() / bare.norm())


@pytest.mark.parametrize("variant", ["frozen", "projected"])
def test_prepared_it_is_still_the_host(variant):
    host, _ = with_kore(variant)
    assert moved(host, CASE.batch) == 0


def test_old_inputs_are_not_moved_by_what_is_learned_and_others_are():
    host, new = with_kore("frozen")
    stir(host, new, by=1.0)
    other = {"pixel_values": CASE.batch["pixel_values"][1:].flip(-1) * 3}
    assert moved(host, old()) < 1e-5
    assert moved(host, other) > 1e-2
    drawn, new = with_kore("frozen", prepared=False)
    stir(drawn, new, by=1.0)
    assert moved(drawn, old()) > 1e-2


def test_what_a_layer_read_is_near_zero_in_the_null_space():
    host, _ = with_kore("frozen")
    seen = []
    module = adapters_of(host).inserts("tune")["layers_0_mlp_up_out"].module
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        host(**old())
    handle.remove()
    inner = seen[0] @ module.down.T
    assert inner.norm() / seen[0].norm() < 1e-5
    torch.testing.assert_close(module.down @ module.down.T, torch.eye(4), rtol=1e-4, atol=1e-5)


def test_projected_starts_from_the_part_of_the_weight_in_the_null_space():
    host, _ = with_kore("projected")
    module = adapters_of(host).inserts("tune")["layers_0_mlp_up_out"].module
    weight = host_of("vit").get_submodule(adapters_of(host).inserts("tune")["layers_0_mlp_up_out"].point.path).weight
    space = torch.linalg.qr(module.down0.T).Q  # [in, r]
    torch.testing.assert_close(module.up0 @ module.down0, weight @ space @ space.T, rtol=1e-4, atol=1e-5)
    assert torch.equal(module.up, module.up0) and torch.equal(module.down, module.down0)
