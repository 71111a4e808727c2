"""AdapterBias's module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed


class TokenShift(nn.Module):
    """a(u) v: one direction v [d] for all tokens, as far as a: R^d_ff -> R says for each.

    With `behind`, u is what the linear puts out, W x + b, and not its input.
    """

    def __init__(self, size: nn.Linear | Borrowed, width: int, behind: bool = False) -> None:
        super().__init__()
        self.size, self.behind = size, behind
        self.direction = nn.Parameter(torch.zeros(width))

    def forward(self, inner: Tensor) -> Tensor:
        return self.size(inner) * self.direction  # [B, T, d_ff] -> [B, T, 1] -> [B, T, d]

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W2 + v a^T and b2 + a_0 v; behind the linear W2 + v a^T W2 and b2 + (a_0 + a^T b2) v."""
        size: Any = self.size.module if isinstance(self.size, Borrowed) else self.size
        along, shift = size.weight[0], size.bias * self.direction
        if self.behind:
            shift = shift if bias is None else shift + (along @ bias) * self.direction
            along = along @ weight
        return weight + torch.outer(self.direction, along), shift if bias is None else bias + shift
