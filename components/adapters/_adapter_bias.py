"""AdapterBias's module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed


class TokenShift(nn.Module):
    """a(u) v: one direction v [d] for all tokens, as far as a: R^d_ff -> R says for each."""

    def __init__(self, size: nn.Linear | Borrowed, width: int) -> None:
        super().__init__()
        self.size = size
        self.direction = nn.Parameter(torch.zeros(width))

    def forward(self, inner: Tensor) -> Tensor:
        return self.size(inner) * self.direction  # [B, T, d_ff] -> [B, T, 1] -> [B, T, d]

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W2 + v a^T and b2 + a_0 v."""
        size = self.size.module if isinstance(self.size, Borrowed) else self.size
        shift = size.bias * self.direction  # type: ignore[operator]
        return weight + torch.outer(self.direction, size.weight[0]), shift if bias is None else bias + shift  # type: ignore[index]
