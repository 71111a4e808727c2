"""Fewer, wider tokens in space."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import TokenProjector

if TYPE_CHECKING:
    from torch import nn


@register
class PixelShuffle(TokenProjector):
    """Each r x r square of a square grid becomes one token: [B, s^2, in] -> [B, (s/r)^2, r^2 in] -> W y + b.

    `ratio` is r and divides the side s. Inside a square the tokens are joined row by row.
    Parameters: ratio^2 * in * out + out.
    """

    type = "projector.pixel_shuffle"
    masks = "refused"

    ratio: int = Field(2, ge=1, le=64, description="r, the side of a square that becomes one token")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        nodes = {
            "photo": {"type": "input.image", "size": [64, 64]},
            "eyes": {"type": "encoder.timm", "model": "test_vit"},
            "part": {"type": cls.type, "width": 24},
        }
        return [({"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}, 4 * 64 * 24 + 24)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        plain = super().shape(inputs, want, base)
        tokens = plain["tokens"]
        if not isinstance(tokens, int):
            return plain
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise WireError("in", f"{tokens} tokens are no square grid; leave class tokens and odd sizes out")
        if side % self.ratio:
            raise WireError(
                "in", f"`ratio` {self.ratio} does not divide the grid's side of {side}; change it or the size"
            )
        return value("tokens", tokens=(side // self.ratio) ** 2, width=plain["width"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import PixelShuffleLayer

        side = math.isqrt(inputs["in"].size("tokens")) if inputs["in"].kind != "embedding" else 1
        return PixelShuffleLayer(inputs["in"].size("width"), output.size("width"), self.ratio, side)
