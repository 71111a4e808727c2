"""The layers that projectors share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from assembler.ragged import Ragged, on_real, paired, parted

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


def opened(x: Tensor | Ragged) -> tuple[Tensor, Tensor | None]:
    """Tokens [B, T, D] with zeros where there is padding, and their mask; an embedding is one token."""
    values, mask = parted(x)
    values = values.unsqueeze(1) if values.dim() == 2 else values
    return (values, None) if mask is None else (torch.where(mask.unsqueeze(-1), values, 0), mask)


def windows(x: Tensor, size: int) -> Tensor:
    """[B, T, D] -> [B, ceil(T / size), size, D], with zeros after the last token."""
    return functional.pad(x, (0, 0, 0, -x.shape[1] % size)).unflatten(1, (-1, size))


def window_masks(mask: Tensor, size: int) -> Tensor:
    """[B, T] -> [B, ceil(T / size), size]."""
    return functional.pad(mask, (0, -mask.shape[1] % size)).unflatten(1, (-1, size))


class Mlp(nn.Sequential):
    """`depth` linears with an activation between them, over the last axis."""

    def __init__(
        self,
        inner: int,
        outer: int,
        depth: int,
        hidden: int | None = None,
        activation: str = "gelu",
        norm: bool = False,
        bias: bool = True,
    ) -> None:
        widths = [inner, *[hidden or outer] * (depth - 1), outer]
        layers: list[nn.Module] = [nn.LayerNorm(inner)] if norm else []
        for index, (a, b) in enumerate(pairwise(widths)):
            layers += [ACTIVATIONS[activation]()] if index else []
            layers.append(nn.Linear(a, b, bias=bias))
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) if x.dim() == 2 else x  # [B, T, in]
        return super().forward(x)  # [B, T, out]


class FrameStackLayer(nn.Module):
    """Joins `stack` successive tokens into one, then one linear."""

    def __init__(self, inner: int, outer: int, stack: int) -> None:
        super().__init__()
        self.stack = stack
        self.linear = nn.Linear(stack * inner, outer)

    def forward(self, tokens: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = opened(tokens)
        real = None if mask is None else window_masks(mask, self.stack).any(-1)  # [B, T / k]
        return on_real(self.linear, paired(windows(x, self.stack).flatten(2), real))  # [B, T / k, out]


class PixelShuffleLayer(nn.Module):
    """Joins each `ratio` x `ratio` square of every grid of `rows` x `columns` tokens into one, then one linear."""

    def __init__(self, inner: int, outer: int, ratio: int, rows: int, columns: int) -> None:
        super().__init__()
        self.grid = (-1, rows // ratio, ratio, columns // ratio, ratio)
        self.linear = nn.Linear(ratio * ratio * inner, outer)

    def forward(self, x: Tensor) -> Tensor:
        grid = opened(x)[0].unflatten(1, self.grid)  # [B, frames, R, r, C, r, in]
        return self.linear(grid.transpose(3, 4).flatten(4).flatten(1, 3))  # [B, frames * R * C, out]


class GroupedBottleneckLayer(nn.Module):
    """x + a narrow linear step whose way up is block-diagonal, zero at first."""

    def __init__(self, width: int, hidden: int, groups: int, dropout: float) -> None:
        super().__init__()
        self.groups = groups
        self.down = nn.Linear(width, hidden)
        self.up = nn.Parameter(torch.zeros(groups, hidden // groups, width // groups))
        self.bias = nn.Parameter(torch.zeros(width))
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = opened(x)[0]
        narrow = self.dropout(self.down(x)).unflatten(-1, (self.groups, 1, -1))  # [B, T, g, 1, h / g]
        return x + ((narrow @ self.up).flatten(2) + self.bias)  # [B, T, d]


class ModalityTokenLayer(nn.Module):
    """A learned token before the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)

    def forward(self, tokens: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = opened(tokens)
        mask = None if mask is None else functional.pad(mask, (1, 0), value=True)
        return paired(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1), mask)  # [B, 1 + T, D]
