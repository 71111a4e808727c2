"""Clouds turned, mirrored, stretched and shaken while an encoder learns."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Unsettled(nn.Module):
    """Points [B, N, 3 + C] -> the same, each cloud moved at random about the z axis while it learns; else as they are.

    With `normals` the first three of the C channels are directions, and turn with the cloud.
    """

    def __init__(self, turn: str, mirror: bool, stretch: float, jitter: float, normals: bool) -> None:
        super().__init__()
        self.turn, self.mirror, self.stretch, self.jitter = turn, mirror, stretch, jitter
        self.normals = normals

    def forward(self, points: Tensor) -> Tensor:
        if not self.training:
            return points
        batch = points.shape[0]
        moved = self._moved(batch, points)  # [B, 3, 3]
        sizes = 1 + self.stretch * (2 * torch.rand(batch, 1, 3).to(points) - 1)
        xyz = points[..., :3] @ moved * sizes
        xyz = xyz + self.jitter * torch.randn_like(xyz)
        if not self.normals:
            return torch.cat([xyz, points[..., 3:]], dim=-1)
        normal = nn.functional.normalize(points[..., 3:6] @ moved / sizes, dim=-1)
        return torch.cat([xyz, normal, points[..., 6:]], dim=-1)

    def _moved(self, batch: int, like: Tensor) -> Tensor:
        """A turn about z of each cloud, and with `mirror` for every second one on average y the other way round."""
        angle = torch.zeros(batch)
        if self.turn == "quarter":
            angle = torch.randint(0, 4, (batch,)) * (math.pi / 2)
        elif self.turn == "any":
            angle = torch.rand(batch) * (2 * math.pi)
        side = 1 - 2 * torch.randint(0, 2, (batch,)) * self.mirror
        cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros(batch), torch.ones(batch)
        rows = [torch.stack(row, dim=-1) for row in ((cos, sin * side, zero), (-sin, cos * side, zero))]
        return torch.stack([*rows, torch.stack([zero, zero, one], dim=-1)], dim=1).to(like)
