"""Any2Point's guided adapter: what learns beside a frozen transformer that reads points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.encoders._projection import VIEWS

HEADS = 6


class Cells(NamedTuple):
    """Which tokens lie together: `same` [..., T, T] of real tokens and themselves, `first` [..., T] the first of each
    token's cell, `counted` [..., T] True once a cell."""

    same: Tensor
    first: Tensor
    counted: Tensor


def cells(index: Tensor, real: Tensor | None) -> Cells:
    """Tokens with the same index [B, ..., T, axes]; a token that is not real is alone, and not counted."""
    same = (index.unsqueeze(-2) == index.unsqueeze(-3)).all(-1)  # [B, ..., T, T]
    count = index.shape[-2]
    if real is not None:
        together = real.unsqueeze(-1) & real.unsqueeze(-2) | torch.eye(count, dtype=torch.bool, device=index.device)
        same = same & (together if same.dim() == 3 else together.unsqueeze(1))
    first = same.to(torch.int64).argmax(-1)
    counted = first == torch.arange(count, device=index.device)
    if real is not None:
        counted = counted & (real if counted.dim() == 2 else real.unsqueeze(1))
    return Cells(same, first, counted)


def cell_mean(x: Tensor, where: Cells) -> Tensor:
    """The mean over each token's cell, [..., T, D]."""
    share = where.same.to(x.dtype)
    return share @ x / share.sum(-1, keepdim=True)


def cell_max(x: Tensor, where: Cells) -> Tensor:
    """The maximum over each token's cell, of [B, T, D]."""
    index = where.first.unsqueeze(-1).expand_as(x)
    lowest = torch.full_like(x, torch.finfo(x.dtype).min)
    return lowest.scatter_reduce(1, index, x, "amax").gather(1, index)


class CellNorm(nn.Module):
    """Batch norm of [B, *groups, T, D] over B and T with statistics of its own for each group, and GELU.

    While it learns it takes its statistics from the tokens that are counted, so from each cell once. Parameters: 2 * D
    a group.
    """

    def __init__(self, width: int, groups: tuple[int, ...] = (), momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(*groups, width)), nn.Parameter(torch.zeros(*groups, width))
        self.momentum, self.eps = momentum, eps
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", torch.zeros(*groups, width))
        self.register_buffer("variance", torch.ones(*groups, width))

    def forward(self, x: Tensor, counted: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training:
            share = counted.to(x.dtype).unsqueeze(-1)  # [B, *groups, T, 1]
            total = share.sum((0, -2)).clamp(min=1)
            mean = (share * x).sum((0, -2)) / total
            variance = (share * (x - mean.unsqueeze(-2)).square()).sum((0, -2)) / total
            with torch.no_grad():
                self.mean.lerp_(mean.to(self.mean.dtype), self.momentum)
                self.variance.lerp_((variance * total / (total - 1).clamp(min=1)).to(self.mean.dtype), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return F.gelu((x - mean.unsqueeze(-2)) * scale.unsqueeze(-2) + self.bias.unsqueeze(-2))


class ViewAttention(nn.Module):
    """For each view x + proj(attention(norm(x))) within the view's cells: [B, T, D] -> [B, V, T, D].

    Parameters: V * (2 D + 3 D m + 3 m + m D + D) with m the inner width.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        views, self.inner = len(VIEWS), inner
        self.norm_weight = nn.Parameter(torch.ones(views, 1, width))
        self.norm_bias = nn.Parameter(torch.zeros(views, 1, width))
        self.qkv_weight = nn.Parameter(torch.empty(views, width, 3 * inner))
        self.qkv_bias = nn.Parameter(torch.zeros(views, 1, 3 * inner))
        self.proj_weight = nn.Parameter(torch.empty(views, inner, width))
        self.proj_bias = nn.Parameter(torch.zeros(views, 1, width))
        for weight in (self.qkv_weight, self.proj_weight):
            for one in weight:
                nn.init.xavier_uniform_(one)

    def forward(self, x: Tensor, same: Tensor) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:]).unsqueeze(1) * self.norm_weight + self.norm_bias  # [B, V, T, D]
        qkv = normed @ self.qkv_weight + self.qkv_bias  # [B, V, T, 3 m]
        q, k, v = (
            one.unflatten(-1, (HEADS, -1)).transpose(2, 3) for one in qkv.chunk(3, dim=-1)
        )  # [B, V, H, T, m / H]
        scores = (q @ k.transpose(-1, -2)) / self.inner**0.5
        shares = scores.masked_fill(~same.unsqueeze(2), torch.finfo(scores.dtype).min).softmax(-1)
        out = (shares @ v).transpose(2, 3).flatten(3)  # [B, V, T, m]
        return x.unsqueeze(1) + out @ self.proj_weight + self.proj_bias


class GuidedAdapter(nn.Module):
    """What is added in one block: a bottleneck on the MLP's output, and the views' features weighed by the 3D ones.

    Parameters: 2 D r + r + D + 2 D + V * 2 D.
    """

    def __init__(self, width: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.down, self.up, self.dropout = nn.Linear(width, rank), nn.Linear(rank, width), nn.Dropout(dropout)
        for linear in (self.down, self.up):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)
        self.norm_3d, self.norm_views = CellNorm(width), CellNorm(width, (len(VIEWS),))

    def bottleneck(self, f: Tensor) -> Tensor:
        """W_up quick_gelu(W_down f)."""
        hidden = self.down(f)
        return self.up(self.dropout(hidden * (1.702 * hidden).sigmoid()))

    def guidance(self, x: Tensor, voxels: Cells, views: Cells, attention: ViewAttention) -> Tensor:
        """sum_j a_j x_j over the views of tokens [B, T, D], a_j in the measure of (cos(x_j, x3d) + 1) / 2."""
        solid = self.norm_3d(cell_max(x, voxels) + cell_mean(x, voxels), voxels.counted)  # [B, T, D]
        flat = self.norm_views(cell_mean(attention(x, views.same), views), views.counted)  # [B, V, T, D]
        alike = (F.cosine_similarity(flat, solid.unsqueeze(1), dim=-1) + 1) / 2  # [B, V, T]
        shares = alike / alike.sum(1, keepdim=True).clamp(min=1e-8)
        return (shares.unsqueeze(-1) * flat).sum(1)
