"""Fewer, wider tokens in space."""

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
class PixelShuffle(TokenProjector):
    """Each r x r square of a grid becomes one token: [B, R C, in] -> [B, (R / r) (C / r), r^2 in] -> W y + b.

    `ratio` is r and divides both sides. Inside a square the tokens are joined row by row; the frames of a video are
    grids one after the other. Parameters: ratio^2 * in * out + out.
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
        grid, width = grid_of(inputs["in"]), self.width or want
        if grid is None:
            return value("tokens", width=width)
        frames, rows, columns = grid
        if rows % self.ratio or columns % self.ratio:
            sides = f"side of {rows}" if rows == columns else f"sides of {rows} and {columns}"
            raise WireError("in", f"`ratio` {self.ratio} does not divide the grid's {sides}; change it or the size")
        rows, columns = rows // self.ratio, columns // self.ratio
        facts = grid_facts(inputs["in"], rows, columns)
        return value("tokens", facts=facts, tokens=frames * rows * columns, width=width)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import PixelShuffleLayer

        source, grid = inputs["in"], grid_of(inputs["in"])
        assert grid is not None
        return PixelShuffleLayer(source.size("width"), output.size("width"), self.ratio, *grid[1:])
