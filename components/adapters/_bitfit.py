"""BitFit's module."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Shift(nn.Module):
    """W and b + delta."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(bias.shape))

    def forward(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return weight, bias + self.delta

    fold = forward
