"""Samples of different lengths in one tensor: padded values and a mask that says which positions are real."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


class Ragged(NamedTuple):
    """What a ragged wire carries: `values` [B, T, ...] and `mask` [B, T], True where a position is real.

    Values where the mask is False may be anything; whoever reads across positions has to leave them out.
    """

    values: Tensor
    mask: Tensor


def parted(x: Tensor | Ragged) -> tuple[Tensor, Tensor | None]:
    """The values, and the mask where there is one."""
    return (x.values, x.mask) if isinstance(x, Ragged) else (x, None)


def paired(values: Tensor, mask: Tensor | None) -> Tensor | Ragged:
    """The inverse of `parted`."""
    return values if mask is None else Ragged(values, mask)


def spread(real: Tensor, mask: Tensor) -> Tensor:
    """The real positions [N, ...], row by row, at their places of [B, T, ...], with zeros elsewhere."""
    values = real.new_zeros(*mask.shape, *real.shape[1:])
    values[mask] = real
    return values


def unread(values: Tensor) -> bool:
    """Whether nothing may depend on what is in a tensor: a graph is made for every length, or only shapes are there."""
    return torch.compiler.is_compiling() or isinstance(values, FakeTensor)


def on_real(layer: Callable[[Tensor], Tensor], x: Tensor | Ragged) -> Tensor | Ragged:
    """A layer that works on each position alone, on what is real of [B, T, D]; padding gives zeros.

    A compiled or exported graph has one shape for every length, and a forecast only shapes, so that there the padding
    goes through the layer too.
    """
    values, mask = parted(x)
    if mask is None or unread(values):
        return paired(layer(values), mask)
    return Ragged(spread(layer(values[mask].unsqueeze(0))[0], mask), mask)  # [1, N, D] through the layer


def masked_mean(values: Tensor, mask: Tensor | None, dim: int = 1) -> Tensor:
    """The mean over the real positions of [B, T, D] -> [B, D]; zero where a sample has none."""
    if mask is None:
        return values.mean(dim)
    weight = mask.to(values.dtype).unsqueeze(-1)  # [B, T, 1]
    return torch.where(mask.unsqueeze(-1), values, 0).sum(dim) / weight.sum(dim).clamp(min=1)


def packed(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """[B, T, D] and mask [B, T] with all that is real at the left end, in its order."""
    place = torch.arange(mask.shape[1], device=mask.device)
    order = (~mask * mask.shape[1] + place).argsort(1)  # [B, T], keys are unique
    moved = values.gather(1, order.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
    return moved, mask.gather(1, order)
