"""K-Adapter's side network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from components.projectors._attention import Attention, feed_forward


class PostNorm(nn.Module):
    """x <- LN(x + attention(x)), then x <- LN(x + W_2 gelu(W_1 x)): a layer of BERT."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(width, heads), feed_forward(width, inner)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm1(x + self.attention(x, x, mask))  # [B, T, h]
        return self.norm2(x + self.mlp(x))


class Tap(nn.Module):
    """u + up(layers(down(u))): [B, T, d]."""

    def __init__(self, width: int, size: int, inner: int, heads: int, depth: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=2e-4)
            nn.init.zeros_(linear.bias)
        self.layers = nn.ModuleList(PostNorm(size, inner, heads) for _ in range(depth))

    def forward(self, u: Tensor, mask: Tensor | None) -> Tensor:
        z = self.down(u)
        for layer in self.layers:
            z = layer(z, mask)
        return u + self.up(z)


class Side(nn.Module):
    """W [H; h_K] + b - H, the change that puts the joined states in the place of H; or W h_K + b."""

    def __init__(
        self,
        width: int,
        size: int,
        inner: int,
        heads: int,
        depth: int,
        taps: int,
        concat: bool,
        mask: Borrowed,
    ) -> None:
        super().__init__()
        self.taps = nn.ModuleList(Tap(width, size, inner, heads, depth) for _ in range(taps))
        self.join = nn.Linear(2 * width if concat else width, width)
        if not concat:
            nn.init.zeros_(self.join.weight)
            nn.init.zeros_(self.join.bias)
        self.concat, self.mask = concat, mask

    def forward(self, last: Tensor, *states: Tensor) -> Tensor:
        mask: Tensor | None = self.mask.module.mask  # type: ignore[assignment]
        h = torch.zeros_like(last)
        for tap, state in zip(self.taps, states, strict=True):
            h = tap(state + h, mask)  # [B, T, d]
        return self.join(torch.cat([last, h], -1)) - last if self.concat else self.join(h)
