"""Points as tensors: which are farthest, which are near, and layers over groups of them.

Everything here keeps to fixed counts, so that it exports: no set of points depends on the data in size. A `mask` [B, N]
says which points are real; the others are never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assembler.ragged import masked_mean


def farthest_points(xyz: Tensor, count: int, mask: Tensor | None = None) -> Tensor:
    """Indices [B, count] of points of [B, N, 3]: the one farthest from the mean, then always the one farthest from all
    before it. Where a cloud has fewer real points, some come again.

    The order of the points does not matter, unless two are equally far.
    """
    with torch.no_grad():
        away = (xyz - masked_mean(xyz, mask).unsqueeze(1)).square().sum(-1)  # [B, N]
        best = torch.full_like(away, torch.inf)
        if mask is not None:
            away, best = away.masked_fill(~mask, -1), best.masked_fill(~mask, -1)

        def step(state: tuple[Tensor, Tensor], _: Tensor | None) -> tuple[tuple[Tensor, Tensor], Tensor]:
            nearest, at = state
            place = xyz.gather(1, at.view(-1, 1, 1).expand(-1, 1, 3))
            nearest = torch.minimum(nearest, (xyz - place).square().sum(-1))
            return (nearest, nearest.argmax(1)), at.clone()

        state = (best, away.argmax(1))
        if torch.compiler.is_exporting():  # one ONNX Scan in place of `count` copies of the step
            from torch._higher_order_ops.scan import scan

            return scan(step, state, xyz.new_zeros(count, 1))[1].transpose(0, 1)
        found = []
        for _ in range(count):
            state, at = step(state, None)
            found.append(at)
        return torch.stack(found, dim=1)


def rows(x: Tensor, index: Tensor) -> Tensor:
    """x[b, index[b, ...]] of x [B, N, C] and index [B, ...] -> [B, ..., C]."""
    start = torch.arange(x.shape[0], device=x.device) * x.shape[1]
    flat = index + start.view(-1, *[1] * (index.dim() - 1))
    return x.flatten(0, 1).index_select(0, flat.flatten()).unflatten(0, index.shape)


def near_points(
    centres: Tensor, xyz: Tensor, count: int, mask: Tensor | None = None, radius: float | None = None
) -> Tensor:
    """Indices [B, M, count] of the points of [B, N, 3] nearest to each of [B, M, 3], the nearest first.

    What is not real or lies outside the radius is replaced by the nearest.
    """
    with torch.no_grad():
        distance = sum((centres[..., i, None] - xyz[:, None, :, i]).square() for i in range(3))  # [B, M, N]
        assert isinstance(distance, Tensor)
        if mask is not None:
            distance = distance.masked_fill(~mask.unsqueeze(1), torch.inf)
        far, index = distance.topk(count, largest=False)
        limit = torch.finfo(far.dtype).max if radius is None else radius**2
        return torch.where(far <= limit, index, index[..., :1])


class PointNorm(nn.BatchNorm1d):
    """Batch norm over the last axis of [..., C], as a 1 x 1 convolution's would be."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


class SharedMlp(nn.Sequential):
    """Linear, batch norm and ReLU for each width, the same at every point: [..., C] -> [..., widths[-1]].

    Parameters: sum over successive widths of a * b + 2 b.
    """

    def __init__(self, inner: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(inner, width, bias=False), PointNorm(width), nn.ReLU()]
            inner = width
        super().__init__(*layers)
