"""Strided convolutions over tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.ragged import Ragged, paired
from components.projectors._layers import opened, window_masks


class StridedConvs(nn.Module):
    """Convolutions over time of stride s, each followed by a GELU: [B, T, D] -> [B, ceil(T / s) each, D].

    A token is real where one that its stride covers is.
    """

    def __init__(self, width: int, layers: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, kernel, stride, padding=(kernel - 1) // 2) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        for layer in self.layers:
            x = x if mask is None else torch.where(mask.unsqueeze(-1), x, 0)
            x = F.gelu(layer(x.transpose(1, 2))).transpose(1, 2)
            mask = None if mask is None else window_masks(mask, self.stride).any(-1)
        return x, mask


class GridConvs(nn.Module):
    """The same over each grid of rows x columns: [B, frames * rows * columns, D] -> [B, frames * R * C, D]."""

    def __init__(self, width: int, layers: int, kernel: int, stride: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.layers = nn.ModuleList(
            nn.Conv2d(width, width, kernel, stride, padding=(kernel - 1) // 2) for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: None) -> tuple[Tensor, None]:
        batch = x.shape[0]
        x = x.unflatten(1, (-1, *self.grid)).flatten(0, 1).permute(0, 3, 1, 2)  # [B * frames, D, rows, columns]
        for layer in self.layers:
            x = F.gelu(layer(x))
        return x.flatten(2).transpose(1, 2).reshape(batch, -1, x.shape[1]), None


class ConvProjector(nn.Module):
    """Strided convolutions, then one linear."""

    def __init__(
        self, inner: int, outer: int, layers: int, kernel: int, stride: int, grid: tuple[int, int] | None
    ) -> None:
        super().__init__()
        sizes = (inner, layers, kernel, stride)
        self.convs = StridedConvs(*sizes) if grid is None else GridConvs(*sizes, grid)
        self.linear = nn.Linear(inner, outer)

    def forward(self, tokens: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = self.convs(*opened(tokens))
        return paired(self.linear(x), mask)
