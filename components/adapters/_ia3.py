"""(IA)3's modules: a vector that scales what goes into a linear or comes out of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledOutput(nn.Module):
    """l * y, l starting at one: [..., out] -> [..., out]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ia3_l = nn.Parameter(torch.ones(width))

    def forward(self, value: Tensor) -> Tensor:
        return value * self.ia3_l

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """diag(l) W and l * b."""
        return self.ia3_l[:, None] * weight, None if bias is None else self.ia3_l * bias


class ScaledInput(ScaledOutput):
    """The same on the way in: W (l * x)."""

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W diag(l)."""
        return weight * self.ia3_l, bias
