"""The modules of the parts in which tokens attend to other tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, paired
from components.projectors._attention import Attention, feed_forward
from components.projectors._layers import Mlp, opened


class GatedBlock(nn.Module):
    """Attention to a context and a feed-forward, each behind the tanh of a gate that starts at `gate`."""

    def __init__(self, width: int, context: int, heads: int, size: int, multiple: int, gate: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, heads * size, context, bias=False)
        self.mlp = feed_forward(width, multiple * width, bias=False)
        self.gates = nn.Parameter(torch.full((2,), gate))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        gates = self.gates.tanh()
        x = x + gates[0] * self.attention(self.norm1(x), context, mask)  # [B, T, D]
        return x + gates[1] * self.mlp(self.norm2(x))


class CrossAttentionLayer(nn.Module):
    """`layers` gated blocks over one context."""

    def __init__(
        self, width: int, context: int, layers: int, heads: int, size: int, multiple: int, gate: float = 0.0
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(GatedBlock(width, context, heads, size, multiple, gate) for _ in range(layers))

    def forward(self, tokens: Tensor | Ragged, context: Tensor | Ragged) -> Tensor | Ragged:
        x, real = opened(tokens)
        other, mask = opened(context)
        for block in self.blocks:
            x = block(x, other, mask)
        return paired(x, real)


class SideBlock(nn.Module):
    """q <- q + attention(q, z), without an output projection; q <- q + W_2 gelu(W_1 norm(q)), without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads, out=False)
        self.norm = nn.LayerNorm(width)
        self.mlp = feed_forward(width, 2 * width, bias=False)

    def forward(self, q: Tensor, z: Tensor, mask: Tensor) -> Tensor:
        seen = self.attention(q, z, mask)  # [B * T, S, c]
        q = q + torch.where(mask.any(-1)[:, None, None], seen, 0)
        return q + self.mlp(self.norm(q))


class SideChannelLayer(nn.Module):
    """What the side channel adds to a video's projected tokens: nothing at first, since its last norm starts at zero.

    `steps` says which steps of the side channel each frame sees, and `held` which of those are there: [T, L] both.
    """

    def __init__(
        self,
        inner: int,
        side: int,
        outer: int,
        hidden: int,
        layers: int,
        heads: int,
        frames: int,
        times: int,
    ) -> None:
        super().__init__()
        steps, held = chunks(frames, times)
        self.times = times
        self.steps: Tensor
        self.held: Tensor
        self.register_buffer("steps", steps, persistent=False)
        self.register_buffer("held", held, persistent=False)
        self.from_side, self.from_video = nn.Linear(side, hidden), nn.Linear(inner, hidden)
        self.blocks = nn.ModuleList(SideBlock(hidden, heads) for _ in range(layers))
        self.mlp = Mlp(hidden, outer, depth=2, hidden=2 * hidden)
        self.norm = nn.LayerNorm(outer)
        nn.init.zeros_(self.norm.weight)

    def forward(self, video: Tensor | Ragged, projected: Tensor | Ragged, side: Tensor | Ragged) -> Tensor | Ragged:
        (x, _), (base, real), (z, mask) = opened(video), opened(projected), opened(side)
        batch, frames = x.shape[0], self.steps.shape[0]
        mask = z.new_ones(z.shape[:2], dtype=torch.bool) if mask is None else mask
        z = z.unflatten(1, (self.times, -1))[:, self.steps]  # [B, T, L, S_s, d_s]
        mask = mask.unflatten(1, (self.times, -1))[:, self.steps] & self.held.unsqueeze(-1)  # [B, T, L, S_s]
        z, mask = self.from_side(z.flatten(2, 3).flatten(0, 1)), mask.flatten(2, 3).flatten(0, 1)  # [B * T, L * S_s, c]
        q = self.from_video(x).unflatten(1, (frames, -1)).flatten(0, 1)  # [B * T, S, c]
        for block in self.blocks:
            q = block(q, z, mask)
        patch = self.norm(self.mlp(q)).reshape(batch, -1, base.shape[-1])  # [B, T * S, out]
        return paired(base + patch, real)


def chunks(frames: int, times: int) -> tuple[Tensor, Tensor]:
    """Which of `times` steps each of `frames` frames sees, in order: steps [frames, L] and which of them count.

    Steps are dealt out as evenly as can be; where there are fewer steps than frames, several frames see one.
    """
    place = torch.arange(frames + 1, device="cpu") * times // frames
    begin, end = place[:-1], torch.maximum(place[1:], place[:-1] + 1)
    longest = int((end - begin).max())
    steps = begin.unsqueeze(1) + torch.arange(longest, device="cpu")  # [frames, L]
    return steps.clamp(max=times - 1), steps < end.unsqueeze(1)
