"""The module of `projector.temporal_pool`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, paired, parted


class TemporalPoolLayer(nn.Module):
    """Pools each place over successive frames, the real ones alone."""

    def __init__(self, width: int, frames: int, left: int, how: str) -> None:
        super().__init__()
        self.frames, self.left, self.how = frames, left, how
        self.query = nn.Parameter(torch.zeros(width)) if how == "attention" else None

    def forward(self, tokens: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = parted(tokens)
        x = x.unflatten(1, (self.left, self.frames // self.left, -1))  # [B, left, f, T, D]
        real = None if mask is None else mask.unflatten(1, x.shape[1:4])  # [B, left, f, T]
        if self.how == "max":
            pooled = self._largest(x, real)
        else:
            pooled = (self._weights(x, real).unsqueeze(-1) * _zeroed(x, real)).sum(2)  # [B, left, T, D]
        found = None if real is None or self.left == 1 else real.any(2).flatten(1)  # [B, left * T]
        return paired(pooled.flatten(1, 2), found)

    def _weights(self, x: Tensor, real: Tensor | None) -> Tensor:
        """[B, left, f, T], over f the share of each frame; zeros where no frame is real."""
        scores = x.new_zeros(x.shape[:-1]) if self.query is None else _zeroed(x, real) @ self.query / x.shape[-1] ** 0.5
        if real is None:
            return scores.softmax(2)
        shares = scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(2)
        return torch.where(real, shares, 0)

    def _largest(self, x: Tensor, real: Tensor | None) -> Tensor:
        if real is None:
            return x.amax(2)
        lowest = torch.where(real.unsqueeze(-1), x, torch.finfo(x.dtype).min).amax(2)
        return torch.where(real.any(2).unsqueeze(-1), lowest, 0)


def _zeroed(x: Tensor, real: Tensor | None) -> Tensor:
    return x if real is None else torch.where(real.unsqueeze(-1), x, 0)
