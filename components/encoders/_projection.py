"""Any2Point's virtual projection: where a point would lie in what another transformer was trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

VIEWS = tuple((quarter * math.pi / 2, 0.0, math.pi / 2) for quarter in range(4)) + tuple(
    (0.0, side * math.pi / 2, math.pi / 2) for side in (-1, 1)
)
"""Angles about x, y and z from which a cloud is looked at: four around it, and from above and below."""
DIRECTION = (-1.0, 0.0, 1.0)
"""The line that a view is projected on, for a source with one axis."""
DISTANCE = 1.6
"""Of the camera from the origin, for a source with two axes; what lies in the unit sphere is then in the picture."""


class Projection(nn.Module):
    """Centres [B, T, 3] -> where each lies in a table of positions, in each of the six views.

    `grid` is (length,) of a table with one axis or (rows, columns) of one with two. Along one axis a view's centres go
    from the first position to the last; with two they are seen in perspective, the picture's sides at the table's.
    """

    def __init__(self, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.grid = grid
        self.turns: Tensor
        self.register_buffer("turns", torch.stack([rotation(*angles) for angles in VIEWS]), persistent=False)

    def forward(self, centres: Tensor, real: Tensor | None) -> Tensor:
        """Coordinates [B, V, T, axes], each from 0 to its axis's last position."""
        turned = centres.unsqueeze(1) @ self.turns  # [B, V, T, 3]
        if len(self.grid) == 1:
            return self._line(turned, real)
        depth = (turned[..., 2] + DISTANCE).clamp(min=1e-3)
        seen = (turned[..., :2].flip(-1) / depth.unsqueeze(-1) + 1) / 2  # row and column, from 0 to 1
        last = torch.tensor([side - 1 for side in self.grid], dtype=seen.dtype, device=seen.device)
        return seen.clamp(0, 1) * last

    def _line(self, turned: Tensor, real: Tensor | None) -> Tensor:
        direction = torch.tensor(DIRECTION, dtype=turned.dtype, device=turned.device)
        along = turned @ (direction / direction.norm())  # [B, V, T]
        low, high = along, along
        if real is not None:
            outside = ~real.unsqueeze(1)
            low, high = along.masked_fill(outside, torch.inf), along.masked_fill(outside, -torch.inf)
        first, last = low.amin(-1, keepdim=True), high.amax(-1, keepdim=True)
        share = ((along - first) / (last - first).clamp(min=1e-8)).clamp(0, 1)
        return (share * (self.grid[0] - 1)).unsqueeze(-1)


def rotation(x: float, y: float, z: float) -> Tensor:
    """The matrix [3, 3] that turns row vectors about z, then y, then x; exact for right angles."""

    def turn(angle: float, first: int, second: int) -> Tensor:
        matrix = torch.eye(3, device="cpu")
        cosine, sine = round(math.cos(angle), 12), round(math.sin(angle), 12)
        matrix[first, first] = matrix[second, second] = cosine
        matrix[first, second], matrix[second, first] = -sine, sine
        return matrix

    return (turn(x, 1, 2) @ turn(-y, 0, 2) @ turn(z, 0, 1)).T


def positions(at: Tensor, grid: tuple[int, ...], table: Tensor) -> Tensor:
    """Rows of `table` [positions, D], (bi)linearly interpolated at coordinates [B, V, T, axes] -> their mean over the
    views [B, T, D]. A coordinate without a fraction gives its row."""
    shares = [hats(at[..., axis], side) for axis, side in enumerate(grid)]  # [B, V, T, side]
    if len(shares) == 1:
        return shares[0].mean(1) @ table
    both = shares[0].transpose(1, 2).transpose(2, 3) @ shares[1].transpose(1, 2)  # [B, T, rows, columns], over V
    return (both / at.shape[1]).flatten(2) @ table


def hats(at: Tensor, size: int) -> Tensor:
    """max(0, 1 - |u - i|) for each position i: the weights of a linear interpolation, [...] -> [..., size]."""
    return (1 - (at.unsqueeze(-1) - torch.arange(size, dtype=at.dtype, device=at.device)).abs()).clamp(min=0)
