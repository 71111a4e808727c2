"""Point clouds and meshes come in here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from assembler.bundle.manifest import PointsProcessor
from assembler.part import Part
from assembler.registry import register
from assembler.values import Dim, Value, value


@register
class PointsInput(Part):
    """A points column of the data, as [B, points, 3 + extra]: x, y, z and more channels of each point.

    `normalize: sphere` moves the cloud's mean to the origin and its farthest point to distance 1. Of a larger cloud a
    subset is kept: the same random one of every cloud of that size, or with `sample: farthest` points that each are the
    farthest from those before. A smaller cloud is followed by zeros that a mask leaves out, or with `short: repeat`
    repeats its points. Files: ply, obj, stl, off, glb, wrl and npy; a mesh gives 16,384 places drawn evenly from its
    surface, always the same, with the normals there as three extra channels. The node's name is the data column it
    reads, unless `data.columns` maps it to another. Parameters: 0.
    """

    type = "input.points"

    points: int = Field(1024, ge=1, le=2**20, description="number of points")
    extra: int = Field(0, ge=0, le=1024, description="channels of a point beside x, y, z")
    normalize: Literal["sphere", "none"] = Field("sphere", description="centre and scale each cloud, or leave it")
    sample: Literal["random", "farthest"] = Field("random", description="which points of a larger cloud are kept")
    short: Literal["mask", "repeat"] = Field("mask", description="what a smaller cloud is filled with")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"nodes": {"part": {"type": cls.type, "points": 32, "extra": 3}}}, None)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {node: "points"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("points", self.short == "mask", points=self.points, channels=3 + self.extra)

    def points_processor(self) -> PointsProcessor:
        """How a cloud becomes this node's tensor, whichever encoder reads it."""
        return PointsProcessor(**self.model_dump(exclude=set(Part.model_fields)))
