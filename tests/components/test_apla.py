"""APLA: whatever rows learn, the start is the host, and the other rows stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.adapters.book import adapters_of
from assembler.adapters.host import Host
from components.adapters.apla import Apla
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_adapters import stir

CASE = HOSTS["vit"]


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 16), st.integers(0, 1000))
def test_any_rows_start_as_the_host(rank, seed):
    host = host_of("vit")
    Apla(host="h", rank=rank).attach(host, "tune", seed=seed)
    with torch.no_grad():
        assert torch.equal(CASE.run(host), CASE.run(host_of("vit")))


@pytest.mark.parametrize("rank", [3, None])
def test_merged_the_other_rows_are_the_hosts_bit_for_bit(rank):
    host, plain = host_of("vit"), host_of("vit")
    stir(host, Apla(host="h", rank=rank).attach(host, "tune", seed=1))
    at = adapters_of(host).inserts("tune")["layers_0_attn_o"].module.indices
    with torch.no_grad():
        before = CASE.run(host)
        adapters_of(host).merge("tune")
        torch.testing.assert_close(CASE.run(host), before, rtol=1e-6, atol=1e-6)
    for key in ("weight", "bias"):
        new, old = (getattr(Host(one, "").module("layers.0.attn.o"), key) for one in (host, plain))
        rows = (new != old).reshape(16, -1)
        assert rows.any(1).nonzero()[:, 0].tolist() == at.tolist()


def test_each_layer_draws_rows_of_its_own():
    host = host_of("vit")
    Apla(host="h", rank=5).attach(host, "tune", seed=1)
    one, two = (insert.module.indices.tolist() for insert in adapters_of(host).inserts("tune").values())
    assert one != two and len(one) == len(two) == 5
