"""APLA: rows of a weight of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """W and b with r of their rows, at `indices`, in own copies that learn: weight [r, in], bias [r]."""

    indices: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, rank: int) -> None:
        super().__init__()
        rows = torch.randperm(len(weight), device="cpu")[:rank].sort().values
        self.register_buffer("indices", rows)
        self.limits = {"indices": len(weight)}
        at = rows.to(weight.device)
        self.weight = nn.Parameter(weight.detach()[at].clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach()[at].clone())

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """weight [out, in] and bias [out] -> the same with the own rows in place."""
        changed = weight.index_copy(0, self.indices, self.weight)
        return changed, bias if self.bias is None or bias is None else bias.index_copy(0, self.indices, self.bias)

    fold = forward
