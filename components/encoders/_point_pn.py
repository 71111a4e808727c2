"""Any2Point's tokenizer of points (a variant of Point-PN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.encoders._clouds import PointNorm, farthest_points, near_points, rows
from components.encoders._point_transformer import fewer

ALPHA, BETA, LAST = 1000.0, 100.0, 32
"""Wave lengths and scale of the offset encoding, and the inner width of the last stage."""


class Residual(nn.Module):
    """relu(x + bn(W2 relu(bn(W1 x)))) at every point.

    Parameters: 2 * width * inner + 3 * (width + inner).
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(width, inner), PointNorm(inner), nn.ReLU(), nn.Linear(inner, width), PointNorm(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.net(x)).relu()


class PointPn(nn.Module):
    """Points [B, N, 3 + C] -> centres [B, T, 3] and tokens [B, T, 8 * embed], over 4 T and 2 T centres on the way.

    A stage takes half of the points before by farthest point sampling, and the `neighbours` nearest points of each. A
    neighbour's features, joined with the centre's, get the sines and cosines of its offset from the centre, which is
    divided by the largest of the group along each axis; residual layers follow, and the maximum over the neighbours.
    Parameters: for the channels c and the width e = `embed`, c e + 2 e + 2 R(2 e, e) + R(4 e, 2 e) + R(8 e, 32) with
    R(w, i) = 2 w i + 3 (w + i).
    """

    def __init__(self, channels: int, tokens: int, neighbours: int, embed: int) -> None:
        super().__init__()
        self.counts, self.neighbours = (4 * tokens, 2 * tokens, tokens), neighbours
        self.embed = nn.Sequential(nn.Linear(channels, embed, bias=False), PointNorm(embed), nn.ReLU())
        self.stages = nn.ModuleList([
            nn.Sequential(Residual(2 * embed, embed), Residual(2 * embed, embed)),
            nn.Sequential(Residual(4 * embed, 2 * embed)),
            nn.Sequential(Residual(8 * embed, LAST)),
        ])  # fmt: skip

    def forward(self, points: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Centres, tokens, and which of them are real."""
        xyz, x = points[..., :3], self.embed(points)
        for count, stage in zip(self.counts, self.stages, strict=True):
            chosen = farthest_points(xyz, count, mask)
            centres = rows(xyz, chosen)  # [B, M, 3]
            near = near_points(centres, xyz, self.neighbours, mask)  # [B, M, k]
            joined = torch.cat([rows(x, near), rows(x, chosen).unsqueeze(2).expand(-1, -1, self.neighbours, -1)], -1)
            offset = rows(xyz, near) - centres.unsqueeze(2)
            offset = offset / offset.abs().amax(2, keepdim=True).clamp(min=1e-8)
            x = stage(joined + waves(offset, joined.shape[-1])).amax(2)  # [B, M, 2 * width]
            xyz, mask = centres, None if mask is None else fewer(mask, count)
        return xyz, x, mask


def waves(offset: Tensor, width: int) -> Tensor:
    """Sines and cosines [..., width] of offsets [..., 3]: on each axis of BETA x / ALPHA^(i / n), n = width / 6."""
    count = width // 6
    lengths = ALPHA ** (torch.arange(count, dtype=offset.dtype, device=offset.device) / count)
    angles = BETA * offset.unsqueeze(-1) / lengths  # [..., 3, n]
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)
