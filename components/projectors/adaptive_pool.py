"""A fixed number of tokens, whatever comes in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import TokenProjector, grid_facts, grid_of

if TYPE_CHECKING:
    from torch import nn


@register
class AdaptivePool(TokenProjector):
    """y_j = W mean(x_t : floor(j L / n) <= t < ceil((j + 1) L / n)) + b: tokens [B, T, in] -> tokens [B, n, out].

    L counts the real tokens of a sample, so that samples of different lengths give n tokens each and no padding is
    left; one without any gives b. With `grid: [r, c]` rows and columns are pooled apart, r c tokens a frame, as torch's
    adaptive_avg_pool2d does. Parameters: in * out + out.
    """

    type = "projector.adaptive_pool"
    masks = "own"

    tokens: int = Field(16, ge=1, le=100_000, description="n, tokens out")
    grid: tuple[int, int] | None = Field(None, description="rows and columns out, instead of `tokens`")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            (cls.after_ears(tokens=5, width=12), 16 * 12 + 12),
            (cls.after_an_encoder(96, tokens=4, width=12), 256 * 12 + 12),
            (cls.after_an_encoder(96, grid=[2, 1], width=12), 256 * 12 + 12),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source, width = inputs["in"], self.width or want
        if self.grid is None:
            return value("tokens", tokens=self.tokens, width=width)
        if source.ragged:
            raise WireError("in", "a grid has no padding among its tokens, and this wire has; give `tokens` instead")
        if min(self.grid) < 1:
            raise WireError("in", f"`grid` is {list(self.grid)}; give a row and a column or more")
        frames = (grid_of(source) or (None,))[0]
        count = None if frames is None else frames * self.grid[0] * self.grid[1]
        return value("tokens", facts=grid_facts(source, *self.grid), tokens=count, width=width)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._pooling import AdaptivePoolLayer, GridPoolLayer

        sizes = (inputs["in"].size("width"), output.size("width"))
        if self.grid is None:
            return AdaptivePoolLayer(*sizes, self.tokens)
        grid = grid_of(inputs["in"])
        assert grid is not None
        return GridPoolLayer(*sizes, grid[1:], self.grid)
