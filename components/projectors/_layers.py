"""The stack of linears that the plain projectors share."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from assembler.ragged import Ragged, paired, parted

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


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
        x, mask = parted(tokens)
        x = x.unsqueeze(1) if x.dim() == 2 else x  # [B, T, in]
        lack = -x.shape[1] % self.stack
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, 0)
            mask = functional.pad(mask, (0, lack)).unflatten(1, (-1, self.stack)).any(-1)  # [B, T / k]
        x = functional.pad(x, (0, 0, 0, lack))
        return paired(self.linear(x.unflatten(1, (-1, self.stack)).flatten(2)), mask)  # [B, T / k, out]


class PixelShuffleLayer(nn.Module):
    """Joins each `ratio` x `ratio` square of a grid of `side` x `side` tokens into one, then one linear."""

    def __init__(self, inner: int, outer: int, ratio: int, side: int) -> None:
        super().__init__()
        self.ratio, self.blocks = ratio, side // ratio
        self.linear = nn.Linear(ratio * ratio * inner, outer)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) if x.dim() == 2 else x
        grid = x.unflatten(1, (self.blocks, self.ratio, self.blocks, self.ratio))  # [B, s/r, r, s/r, r, in]
        return self.linear(grid.transpose(2, 3).flatten(3).flatten(1, 2))  # [B, (s/r)^2, out]
