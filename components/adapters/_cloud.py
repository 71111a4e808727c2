"""Cloud-Adapter's modules: a context of the image at several sizes, and attention from patches to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed

HEAD = 64
"""Width of a head."""


def separable(inputs: int, outputs: int, kernel: int, stride: int, depthwise: bool) -> nn.Sequential:
    """A convolution over places, or over places and channels, and one over channels, each with a batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs if depthwise else 1, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Context(nn.Module):
    """The image [B, C, H, W] as one token a patch, [B, N, c]; kept until the layers have read it."""

    def __init__(self, inputs: int, channels: int, scales: int, depthwise: bool, patch: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = separable(inputs, channels, 1, 1, depthwise)
        strides = [1] + [2] * (scales - 1)
        self.blocks = nn.ModuleList(separable(channels, channels, 3, stride, depthwise) for stride in strides)
        self.patch = patch
        self.tokens: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "tokens": None}  # what was seen is no part of a copy

    def forward(self, image: Tensor) -> Tensor:
        x, maps = self.stem(image), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        size = x.shape[-2:]
        context = torch.stack([F.adaptive_avg_pool2d(one, size) for one in maps]).sum(0)  # [B, c, h, w]
        grid = (image.shape[-2] // self.patch[0], image.shape[-1] // self.patch[1])
        resized = F.interpolate(context, grid, mode="bilinear", align_corners=False)
        return resized.flatten(2).transpose(1, 2)  # [B, N, c]


class See(nn.Module):
    """Shows the context what the host's patches are cut from."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def forward(self, call: Callable[..., Tensor], image: Tensor) -> Tensor:
        self.context.tokens = self.context(image)
        return call(image)


class Cross(nn.Module):
    """L_o of attention from the patches to the context; zero for the tokens in front of them: [B, T, d]."""

    def __init__(self, context: Borrowed, width: int, channels: int, rank: int, heads: int) -> None:
        super().__init__()
        self.context, self.heads = context, heads

        def low_rank(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False))

        inner = heads * HEAD
        self.q, self.k, self.v = low_rank(width, inner), low_rank(channels, inner), low_rank(channels, inner)
        self.o = low_rank(inner, width)

    def zero(self) -> None:
        """Start as the identity."""
        last = self.o[1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.context.module.tokens  # type: ignore[assignment]
        front = x.shape[1] - seen.shape[1]
        q, k, v = (
            linear(value).unflatten(-1, (self.heads, HEAD)).transpose(1, 2)  # [B, H, N, 64]
            for linear, value in ((self.q, x[:, front:]), (self.k, seen), (self.v, seen))
        )
        out = self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))  # [B, N, d]
        return F.pad(out, (0, 0, front, 0))
