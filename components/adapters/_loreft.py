"""LoReFT's change of the stream within a few directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed


class Subspace(nn.Module):
    """R' (W h + b - R h), where the rows of R [r, d] are made of a free matrix's, one after the other."""

    def __init__(self, width: int, rank: int, same: bool) -> None:
        super().__init__()
        self.rows = nn.Parameter(nn.init.orthogonal_(torch.empty(rank, width)))
        self.source = nn.Linear(width, rank)
        if same:
            nn.init.zeros_(self.source.bias)
            with torch.no_grad():
                self.source.weight.copy_(self.rows)

    def directions(self) -> Tensor:
        """R, by Gram and Schmidt."""
        found: list[Tensor] = []
        for row in self.rows:
            for other in found:
                row = row - (row @ other) * other
            found.append(F.normalize(row, dim=0))
        return torch.stack(found)

    def forward(self, h: Tensor) -> Tensor:
        directions = self.directions()
        return (self.source(h) - h @ directions.T) @ directions  # [B, T, d] -> [B, T, r] -> [B, T, d]


class Ends(nn.Module):
    """The change of the first and of the last real tokens of each row, zero for those between: [B, T, d]."""

    def __init__(self, width: int, rank: int, prefix: int, suffix: int, tied: bool, same: bool, mask: Borrowed) -> None:
        super().__init__()
        counts = (prefix, suffix)
        self.counts, self.mask = counts, mask
        self.ends = nn.ModuleList(Subspace(width, rank, same) for count in (counts[:1] if tied else counts) if count)

    def forward(self, h: Tensor) -> Tensor:
        kept: Tensor | None = self.mask.module.mask  # type: ignore[assignment]
        real = torch.ones_like(h[..., 0], dtype=torch.bool) if kept is None else kept
        place, total = real.cumsum(1), real.sum(1, keepdim=True)  # [B, T], from one on
        first, last = (place <= self.counts[0]) & real, (place > total - self.counts[1]) & real
        if len(self.ends) == 1:
            return self.ends[0](h) * (first | last).unsqueeze(-1)
        one, two = self.ends
        change = torch.where(first.unsqueeze(-1), one(h), 0)
        return change + torch.where(last.unsqueeze(-1), two(h), 0)
