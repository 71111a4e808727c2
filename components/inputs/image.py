"""Pictures come in here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from assembler.part import Part
from assembler.registry import register
from assembler.values import Dim, Value, value

Side = Annotated[int, Field(ge=1, le=8192)]


@register
class ImageInput(Part):
    """A picture column of the data, as an image [B, channels, H, W] of the given size.

    With `crops: n` the picture comes as a video [B, n + 1, channels, H, W] of pictures of that size, as LLaVA-NeXT and
    InternVL show small print: first all of it, then the tiles of a grid, row by row. The grid is the one of at most n
    tiles whose shape is nearest to the picture's, so that pictures of different shapes have different numbers of real
    frames. The node's name is the data column it reads, unless `data.columns` maps it to another. The encoder that it
    feeds says how pixels are scaled. Parameters: 0.
    """

    type = "input.image"

    size: tuple[Side, Side] = Field((224, 224), description="height and width in pixels")
    channels: Literal[1, 3] = Field(3, description="3 for colour, 1 for grey")
    fit: Literal["stretch", "crop"] = Field("stretch", description="stretch both sides, or crop the middle")
    crops: int = Field(0, ge=0, le=64, description="most tiles that it is also cut into, for detail")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {"type": cls.type, "size": [24, 16], "channels": 1}
        return [({"nodes": {"part": small}}, None), ({"nodes": {"part": {**small, "crops": 4}}}, None)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {node: "image"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        height, width = self.size
        if self.crops:
            return value("video", True, frames=self.crops + 1, channels=self.channels, height=height, width=width)
        return value("image", channels=self.channels, height=height, width=width)
