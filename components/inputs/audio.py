"""Sound comes in here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import Field

from assembler.part import Part
from assembler.registry import register
from assembler.values import Dim, Value, value


@register
class AudioInput(Part):
    """A sound column of the data, as one channel [B, seconds * rate] and a mask of where the sound is.

    A longer sound is cut to `seconds`, a shorter one is followed by silence that the mask leaves out; a sound of
    another rate is resampled. The node's name is the data column it reads, unless `data.columns` maps it to another.
    The encoder that it feeds turns it into features. Parameters: 0.
    """

    type = "input.audio"

    seconds: float = Field(30.0, gt=0, le=3600, description="length that every sound is brought to")
    rate: int = Field(16_000, ge=1000, le=192_000, description="samples a second")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"nodes": {"part": {"type": cls.type, "seconds": 0.5}}}, None)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {node: "audio"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("waveform", ragged=True, facts={"rate": self.rate}, samples=round(self.seconds * self.rate))
