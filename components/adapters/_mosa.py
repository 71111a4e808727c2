"""MoSA: a matrix in parts, of which each forward in training uses one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Parts(nn.Module):
    """In training W where `owner` is the part that is drawn, and the start W0 elsewhere; then W, or their mean.

    E copies of W0 of which each learns in its own part alone are W0 with one part of W each, so that one W holds them.
    Their sum over E, `average`, is W0 + (W - W0) / E; what each has learned in its part, `copy`, is W.
    """

    owner: Tensor
    start: Tensor

    def __init__(self, weight: Tensor, count: int, average: bool) -> None:
        super().__init__()
        order = torch.rand_like(weight, dtype=torch.float32).flatten().argsort().argsort()
        self.register_buffer("owner", (order * count // order.numel()).view_as(weight).to(torch.uint8))
        self.register_buffer("start", weight.detach().clone())
        self.count, self.average = count, average

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            drawn = torch.randint(self.count, (), device=weight.device)
            return torch.where(self.owner == drawn, weight, self.start)
        return self.start + (weight - self.start) / self.count if self.average else weight
