"""The modules of the pooling projectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, paired
from components.projectors._attention import some
from components.projectors._layers import opened, window_masks, windows


def bins(place: Tensor, length: Tensor, count: int) -> Tensor:
    """Which of `count` bins each place of a sequence falls into: place [..., T] of length [..., 1] -> [..., count, T].

    Bins overlap where the length is no multiple of their number, as those of torch's adaptive pooling do.
    """
    j = torch.arange(count, device=place.device).unsqueeze(-1)  # [count, 1]
    length, place = length.unsqueeze(-1), place.unsqueeze(-2)
    begin, end = j * length // count, -(-(j + 1) * length // count)
    return (begin <= place) & (place < end)


def means(member: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights [..., n, T] that take the mean of each row's members."""
    weight = member.to(dtype)
    return weight / weight.sum(-1, keepdim=True).clamp(min=1)


class AdaptivePoolLayer(nn.Module):
    """The mean of each of `count` bins over the real tokens, then one linear."""

    def __init__(self, inner: int, outer: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(inner, outer)

    def forward(self, tokens: Tensor | Ragged) -> Tensor:
        x, mask = opened(tokens)
        mask = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        member = bins(mask.cumsum(1) - 1, mask.sum(1, keepdim=True), self.count) & mask.unsqueeze(1)  # [B, n, T]
        return self.linear(means(member, x.dtype) @ x)  # [B, n, out]


class GridPoolLayer(nn.Module):
    """The mean of each cell of a smaller grid laid over every frame, then one linear."""

    def __init__(self, inner: int, outer: int, grid: tuple[int, int], cells: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = (_side(length, count) for length, count in zip(grid, cells, strict=True))
        self.weight: Tensor
        self.register_buffer("weight", torch.kron(rows, columns), persistent=False)  # [r * c, R * C]
        self.linear = nn.Linear(inner, outer)

    def forward(self, x: Tensor) -> Tensor:
        frames = opened(x)[0].unflatten(1, (-1, self.weight.shape[1]))  # [B, frames, R * C, in]
        return self.linear((self.weight.to(x.dtype) @ frames).flatten(1, 2))


def _side(length: int, count: int) -> Tensor:
    place = torch.arange(length, device="cpu")
    return means(bins(place, torch.tensor([length], device="cpu"), count), torch.float32)


class AttentionPoolLayer(nn.Module):
    """A mean of each window weighted by a learned query, then one linear."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.query = nn.Parameter(torch.zeros(inner))
        self.linear = nn.Linear(inner, outer)

    def forward(self, tokens: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = opened(tokens)
        real = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        real = window_masks(real, self.stride)  # [B, W, s], what lacks at the end is padding too
        x = windows(x, self.stride)  # [B, W, s, in]
        score = (x @ self.query).masked_fill(~some(real), -torch.inf)  # [B, W, s]
        pooled = (score.softmax(-1).unsqueeze(-2) @ x).squeeze(-2)  # [B, W, in]
        return paired(self.linear(pooled), None if mask is None else real.any(-1))
