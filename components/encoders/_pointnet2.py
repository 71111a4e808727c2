"""The module of `encoder.pointnet2`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, paired, parted
from components.encoders._clouds import SharedMlp, farthest_points, near_points, rows
from components.encoders._point_transformer import fewer

Ball = tuple[float, int, Sequence[int]]
"""Radius, neighbours, widths."""
Levels = Sequence[tuple[int, Sequence[Ball]]]
"""Centres and balls of each level."""


class SetAbstraction(nn.Module):
    """Points [B, N, 3] with features [B, N, C] -> centres [B, M, 3] with features [B, M, D]."""

    def __init__(self, inner: int, centres: int, scales: Sequence[Ball]) -> None:
        super().__init__()
        self.centres = centres
        self.balls = [(radius, neighbours) for radius, neighbours, _ in scales]
        self.scales = nn.ModuleList([SharedMlp(3 + inner, widths) for _, _, widths in scales])

    def forward(self, xyz: Tensor, features: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        centres = rows(xyz, farthest_points(xyz, self.centres, mask))  # [B, M, 3]
        points, found = torch.cat([xyz, features], dim=-1), []
        for (radius, neighbours), mlp in zip(self.balls, self.scales, strict=True):
            near = rows(points, near_points(centres, xyz, neighbours, mask, radius))  # [B, M, k, 3 + C]
            local = torch.cat([near[..., :3] - centres.unsqueeze(2), near[..., 3:]], dim=-1)
            found.append(mlp(local).amax(2))  # [B, M, widths[-1]]
        return centres, torch.cat(found, dim=-1), None if mask is None else fewer(mask, self.centres)


class PointNet2Tower(nn.Module):
    """Set abstractions, and with `whole` one over everything."""

    def __init__(self, channels: int, levels: Levels, whole: Sequence[int] | None) -> None:
        super().__init__()
        width, made = channels - 3, []
        for centres, scales in levels:
            made.append(SetAbstraction(width, centres, scales))
            width = sum(widths[-1] for _, _, widths in scales)
        self.levels = nn.ModuleList(made)
        self.whole = SharedMlp(3 + width, whole) if whole else None

    def forward(self, points: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = parted(points)
        xyz, features = x[..., :3], x[..., 3:]
        for level in self.levels:
            xyz, features, mask = level(xyz, features, mask)
        if self.whole is None:
            return paired(features, mask)
        out = self.whole(torch.cat([xyz, features], dim=-1))  # [B, M, whole[-1]], from 0 up
        return out.amax(1) if mask is None else torch.where(mask.unsqueeze(-1), out, 0).amax(1)
