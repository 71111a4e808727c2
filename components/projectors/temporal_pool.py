"""Fewer frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value

if TYPE_CHECKING:
    from torch import nn


@register
class TemporalPool(Part):
    """Tokens of F frames [B, F * T, D] -> of fewer [B, frames * T, D]: each place is pooled over successive frames.

    `how` takes over the F / frames real frames x_f of a place their mean, their maximum, or with `attention`
    sum_f softmax_f(x_f . q / sqrt(D)) x_f with a learned q [D], which starts at 0 and so as the mean. What has no real
    frame is not real; with `frames: 1` every sample has one. Parameters: D with `attention`, else 0.
    """

    type = "projector.temporal_pool"
    accepts = {"in": ("tokens",)}
    masks = "own"

    how: Literal["mean", "max", "attention"] = Field("mean", description="what is taken over frames")
    frames: int = Field(1, ge=1, le=4096, description="frames that are left; divides those that come in")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def spec(**knobs: Any) -> dict[str, Any]:
            nodes = {
                "film": {"type": "input.video", "size": [32, 32], "frames": 4},
                "eyes": {"type": "encoder.timm", "model": "test_vit", "output": "pooled"},
                "part": {"type": cls.type, **knobs},
            }
            return {"nodes": nodes, "edges": ["film -> eyes", "eyes -> part"]}

        return [(spec(), 0), (spec(how="attention", frames=2), 64)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        frames, tokens = source.fact("frames"), source["tokens"]
        if frames is None:
            raise WireError("in", "these tokens are of no video; wire an encoder that reads one, or leave this out")
        if frames % self.frames:
            raise WireError("in", f"`frames` {self.frames} does not divide the {frames} that come in; change either")
        facts = {key: fact for key, fact in source.facts if key != "frames"}
        if self.frames > 1:
            facts["frames"] = self.frames
        left = tokens // frames * self.frames if isinstance(tokens, int) else None
        return value("tokens", source.ragged and self.frames > 1, facts, tokens=left, width=source["width"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._temporal_pool import TemporalPoolLayer

        source = inputs["in"]
        return TemporalPoolLayer(source.size("width"), source.fact("frames"), self.frames, self.how)
