"""A narrow residual step on tokens, whose way up is cut into groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value
from components.projectors._base import SameWidth

if TYPE_CHECKING:
    from torch import nn


@register
class GroupedBottleneck(SameWidth):
    """y = x + U (W x + b) + c on every token: tokens [B, T, d] -> tokens [B, T, d].

    W is d -> h; U is h -> d in g groups, each of which takes h / g of the hidden units to d / g of the channels. There
    is no non-linearity. W starts as Xavier's, all else at zero, so that an untrained part passes its tokens on bit for
    bit; `dropout` falls on the hidden units. Source: "Enhancing Model Performance: Another Approach to Vision-Language
    Instruction Tuning", there inside the layers.
    Parameters: d * h + h + d * h / g + d.
    """

    type = "projector.grouped_bottleneck"
    masks = "kept"

    hidden: int = Field(16, ge=1, le=65_536, description="h, hidden width")
    groups: int = Field(2, ge=1, le=1024, description="g, groups, which divide h and d")
    dropout: float = Field(0.1, ge=0, lt=1, description="rate on the hidden units, in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        nodes = {
            "photo": {"type": "input.image", "size": [64, 64]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "part": {"type": cls.type, "hidden": 6, "groups": 2},
        }
        return [({"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}, 256 * 6 + 6 + 256 * 6 // 2 + 256)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        width = inputs["in"]["width"]
        for name, size in (("`hidden`", self.hidden), ("the width", width)):
            if isinstance(size, int) and size % self.groups:
                raise WireError("in", f"`groups` {self.groups} does not divide {name} {size}; change it")
        return super().shape(inputs, want, base)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import GroupedBottleneckLayer

        return GroupedBottleneckLayer(output.size("width"), self.hidden, self.groups, self.dropout)
