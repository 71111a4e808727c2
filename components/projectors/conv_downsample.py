"""Fewer tokens by strided convolutions, in time or in space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import TokenProjector, grid_facts, grid_of, shorter, strided, token_count

if TYPE_CHECKING:
    from torch import nn


@register
class ConvDownsample(TokenProjector):
    """n strided convolutions in -> in, each followed by a GELU, then one linear to the output width.

    Over `time`: tokens [B, T, in] -> [B, T', out], T' = ceil(T / s) n times over. Over the `grid`: both sides are cut
    so, with square kernels. The kernel k is odd; padding reads as zeros and is never counted.
    Parameters: n * (k * in^2 + in) + in * out + out in time, n * (k^2 * in^2 + in) + in * out + out on a grid.
    """

    type = "projector.conv_downsample"
    masks = "own"

    over: Literal["time", "grid"] = Field("time", description="along the sequence, or along rows and columns")
    layers: int = Field(2, ge=1, le=8, description="n, convolutions")
    kernel: Literal[1, 3, 5, 7, 9] = Field(3, description="k, tokens that a convolution sees a side")
    stride: int = Field(2, ge=1, le=16, description="s, of each convolution")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            (cls.after_ears(width=12), 2 * (3 * 16 * 16 + 16) + 16 * 12 + 12),
            (
                cls.after_an_encoder(96, over="grid", layers=1, width=12),
                9 * 256 * 256 + 256 + 256 * 12 + 12,
            ),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source, width = inputs["in"], self.width or want
        if self.over == "time":
            tokens = strided(token_count(source), self.stride, self.layers)
            facts = shorter(source, self.stride**self.layers)
            return value("tokens", ragged=source.ragged, facts=facts, tokens=tokens, width=width)
        if source.ragged:
            raise WireError("in", "a grid has no padding among its tokens, and this wire has; take `over: time`")
        grid = grid_of(source)
        if grid is None:
            return value("tokens", width=width)
        rows, columns = (strided(side, self.stride, self.layers) for side in grid[1:])
        assert isinstance(rows, int) and isinstance(columns, int)
        facts = grid_facts(source, rows, columns)
        return value("tokens", facts=facts, tokens=grid[0] * rows * columns, width=width)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._convolutions import ConvProjector

        grid = grid_of(inputs["in"])[1:] if self.over == "grid" else None  # type: ignore[index]
        sizes = (inputs["in"].size("width"), output.size("width"), self.layers, self.kernel, self.stride)
        return ConvProjector(*sizes, grid)
