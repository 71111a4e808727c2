"""The module of `projector.perceiver_resampler`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.ragged import Ragged
from components.projectors._attention import Attention, feed_forward
from components.projectors._layers import opened

DEVIATION = 0.02


class PerceiverBlock(nn.Module):
    """Latents attend to tokens and latents, then a feed-forward; both are added."""

    def __init__(self, width: int, heads: int, inner: int, hidden: int) -> None:
        super().__init__()
        self.norm_x, self.norm_z, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, inner, bias=False)
        self.mlp = feed_forward(width, hidden, bias=False)

    def forward(self, z: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm_z(z)
        z = z + self.attention(y, torch.cat([self.norm_x(x), y], 1), mask)  # [B, n, D]
        return z + self.mlp(self.norm(z))


class Perceiver(nn.Module):
    """Learned latents through `layers` blocks, a norm and one linear."""

    def __init__(
        self, inner: int, outer: int, latents: int, layers: int, heads: int, size: int, multiple: int, frames: int
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, inner) * DEVIATION)
        self.frames = nn.Parameter(torch.randn(frames, 1, inner) * DEVIATION) if frames else None
        self.blocks = nn.ModuleList(PerceiverBlock(inner, heads, heads * size, multiple * inner) for _ in range(layers))
        self.norm = nn.LayerNorm(inner)
        self.linear = nn.Linear(inner, outer)

    def forward(self, tokens: Tensor | Ragged) -> Tensor:
        x, mask = opened(tokens)
        if self.frames is not None:
            x = (x.unflatten(1, (len(self.frames), -1)) + self.frames).flatten(1, 2)
        z = self.latents.expand(x.shape[0], -1, -1)  # [B, n, D]
        if mask is not None:  # the latents are always there
            x, mask = torch.where(mask.unsqueeze(-1), x, 0), F.pad(mask, (0, len(self.latents)), value=True)
        for block in self.blocks:
            z = block(z, x, mask)
        return self.linear(self.norm(z))
