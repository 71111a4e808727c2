"""AF Adapter's modules: more heads beside a layer's own, and more units beside its MLP's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.attention import Attend
from components.adapters._bottleneck import ACTIVATIONS


class MoreHeads(nn.Module):
    """n heads of width d_h: softmax(W_q x (W_k x)^T / sqrt(d_h)) W_v x, through W_o into what attention adds.

    It stands at three places of a layer: around the projection that first reads the layer's input (which it keeps),
    in the attention, and after the output projection; see `Keep`, `Beside` and this module's own forward.
    """

    def __init__(self, width: int, heads: int, size: int, zero: bool) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.q, self.k, self.v = (nn.Linear(width, heads * size) for _ in range(3))
        self.o = nn.Linear(heads * size, width)
        if zero:
            nn.init.zeros_(self.o.weight)
            nn.init.zeros_(self.o.bias)
        self.read: Tensor | None = None
        self.seen: Tensor | None = None

    def split(self, linear: nn.Linear) -> Tensor:
        """[B, T, d] -> [B, n, T, d_h]."""
        assert self.read is not None
        return linear(self.read).unflatten(-1, (self.heads, self.size)).transpose(1, 2)

    def attend(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """All heads at once; those of the host go on, the new ones wait for the output projection."""
        pairs = ((q, self.q), (k, self.k), (v, self.v))
        queries, keys, values = (torch.cat([own, self.split(mine)], 1) for own, mine in pairs)
        out = attend(queries, keys, values)  # [B, H + n, T, d_h]
        own, self.seen = out[:, : q.shape[1]], out[:, q.shape[1] :]
        return own

    def forward(self, added: Tensor) -> Tensor:
        """W_o of the new heads, added to the output of the host's own."""
        assert self.seen is not None
        seen, self.read, self.seen = self.seen, None, None
        return self.o(seen.transpose(1, 2).flatten(2).reshape(*added.shape[:-1], -1))


class Keep(nn.Module):
    """Keeps what the layer's projections read."""

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, call: Callable[..., Tensor], x: Tensor) -> Tensor:
        self.heads.module.read = x
        return call(x)


class Beside(nn.Module):
    """The new heads in the attention."""

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.heads.module.attend(attend, q, k, v)


class MoreUnits(nn.Module):
    """W_2 f(W_1 x + b_1) + b_2, with e units."""

    def __init__(self, width: int, units: int, activation: str, zero: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, units), nn.Linear(units, width)
        self.activation = ACTIVATIONS[activation]
        if zero:
            nn.init.zeros_(self.down.weight)
            nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))
