"""Videos come in here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from assembler.part import Part
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.inputs.image import Side


@register
class VideoInput(Part):
    """A video column of the data, as frames [B, frames, channels, H, W] of the given size.

    Of a longer video the middles of `frames` equal parts are taken. A shorter one is followed by blank frames that a
    mask leaves out, or with `short: repeat` shows frames again. Files: a folder of pictures, or an animated GIF, WebP
    or PNG. The node's name is the data column it reads, unless `data.columns` maps it to another. The encoder that it
    feeds says how pixels are scaled. Parameters: 0.
    """

    type = "input.video"

    frames: int = Field(8, ge=1, le=4096, description="number of frames")
    size: tuple[Side, Side] = Field((224, 224), description="height and width in pixels")
    channels: Literal[1, 3] = Field(3, description="3 for colour, 1 for grey")
    fit: Literal["stretch", "crop"] = Field("stretch", description="stretch both sides, or crop the middle")
    short: Literal["mask", "repeat"] = Field("mask", description="what a video of fewer frames is filled with")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"nodes": {"part": {"type": cls.type, "frames": 3, "size": [24, 16]}}}, None)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {node: "video"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        height, width = self.size
        ragged = self.short == "mask"
        return value("video", ragged, frames=self.frames, channels=self.channels, height=height, width=width)
