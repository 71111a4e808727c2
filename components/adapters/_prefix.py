"""Learned keys and values in front of a layer's own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from assembler.adapters.attention import Attend
from assembler.adapters.host import Borrowed, Heads


class Trunk(nn.Module):
    """tanh(W1 E + b1), [P, b], which all layers read."""

    def __init__(self, length: int, width: int, inner: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(length, width))
        self.down = nn.Linear(width, inner)

    def forward(self) -> Tensor:
        return torch.tanh(self.down(self.table))


class KeysAndValues(nn.Module, ABC):
    """Calls attention with P more keys and values."""

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.heads = heads

    @abstractmethod
    def pairs(self) -> Tensor:
        """Keys and values, [P, 2, H_kv, d]."""

    def forward(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, d], k and v [B, H_kv, S, d] -> [B, H, T, d]."""
        pairs = self.pairs().permute(1, 2, 0, 3)  # [2, H_kv, P, d]
        if k.shape[1] != pairs.shape[1]:  # a host that repeats its keys before it attends
            pairs = pairs.repeat_interleave(k.shape[1] // pairs.shape[1], 1)
        key, value = pairs.unsqueeze(1).expand(-1, k.shape[0], -1, -1, -1)  # each [B, H_kv, P, d]
        return attend(q, torch.cat([key, k], 2), torch.cat([value, v], 2), extra=key.shape[2])


class Learned(KeysAndValues):
    """Keys and values that are weights themselves."""

    def __init__(self, heads: Heads, length: int) -> None:
        super().__init__(heads)
        self.table = nn.Parameter(torch.randn(length, 2 * heads.kv * heads.size))

    def pairs(self) -> Tensor:
        return self.table.unflatten(1, (2, self.heads.kv, self.heads.size))


class Projected(KeysAndValues):
    """Keys and values read from the trunk: W2 trunk + b2."""

    def __init__(self, heads: Heads, trunk: Trunk) -> None:
        super().__init__(heads)
        self.trunk = Borrowed(trunk)  # held once, by the adapter
        self.up = nn.Linear(trunk.down.out_features, 2 * heads.kv * heads.size)

    def pairs(self) -> Tensor:
        return self.up(self.trunk()).unflatten(1, (2, self.heads.kv, self.heads.size))


def prefix(heads: Heads, length: int, trunk: Trunk | None) -> KeysAndValues:
    """A layer's keys and values."""
    return Learned(heads, length) if trunk is None else Projected(heads, trunk)
