"""The OpAmp adapter: a score map whose rows sum to one, made of two."""

import pytest
import torch
from torch.nn import functional as F

from assembler.adapters.host import Heads
from components.adapters._opamp import OpAmp


def attend(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def opamp(gain: float, kv: int = 2) -> OpAmp:
    torch.manual_seed(0)
    module = OpAmp(Heads(4, kv, 8), 16, 1.0, (gain, 1.0), 0.0)
    for residual in (*module.queries, *module.keys):
        torch.nn.init.normal_(residual.up.weight, std=0.3)
    return module


@pytest.mark.parametrize("gain", [0.0, 0.4, 10.0])
def test_its_rows_sum_to_one_whatever_the_gain_and_may_hold_negative_shares(gain):
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 7, 8), torch.eye(7).expand(2, 2, 7, 7)
    with torch.no_grad():
        rows = opamp(gain)(attend, q, k, v)  # with V the identity what comes out is the map: [2, 4, 5, 7]
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 4, 5), rtol=1e-5, atol=1e-5)
    assert bool((rows < 0).any()) == (gain > 1)


def test_keys_repeated_for_every_head_give_the_same():
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    with torch.no_grad():
        grouped = opamp(10.0)(attend, q, k, v)
        repeated = opamp(10.0)(attend, q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1))
    torch.testing.assert_close(grouped, repeated, rtol=1e-5, atol=1e-5)


def test_it_learns_to_attend_to_one_of_many_keys():
    module, wanted = opamp(10.0, kv=4), torch.randn(1, 4, 12, 8)
    q, v = wanted[:, :, 3:4] * 0.3, torch.eye(12).expand(1, 4, 12, 12)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    before = module(attend, q, wanted, v)[..., 3].mean().item()
    for _ in range(60):
        optimizer.zero_grad()
        rows = module(attend, q, wanted, v)
        (rows[..., 3] - 1).pow(2).mean().backward()
        optimizer.step()
    assert abs(rows[..., 3].mean().item() - 1) < 0.2 < abs(before - 1)
