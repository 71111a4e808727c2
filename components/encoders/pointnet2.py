"""PointNet++."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value
from components.encoders._base import WeightedPart
from components.encoders._points import PointsEncoder

if TYPE_CHECKING:
    from torch import Tensor, nn

Width = Annotated[int, Field(ge=1, le=65_536)]


class Scale(BaseModel):
    """One ball around each centre: its radius, the points taken of it, and the widths of its layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    radius: float = Field(gt=0, le=1e6)
    neighbours: int = Field(ge=1, le=4096)
    widths: tuple[Width, ...] = Field(min_length=1, max_length=16)


class Level(BaseModel):
    """A set abstraction: centres, and the scales that are read around each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    centres: int = Field(ge=1, le=2**20)
    scales: tuple[Scale, ...] = Field(min_length=1, max_length=8)

    @property
    def width(self) -> int:
        """Of a centre's features, over all scales."""
        return sum(scale.widths[-1] for scale in self.scales)


def _level(centres: int, *scales: tuple[float, int, tuple[int, ...]]) -> Level:
    return Level(centres=centres, scales=tuple(Scale(radius=r, neighbours=k, widths=w) for r, k, w in scales))


PUBLISHED = {
    "ssg": (_level(512, (0.2, 32, (64, 64, 128))), _level(128, (0.4, 64, (128, 128, 256)))),
    "msg": (
        _level(512, (0.1, 16, (32, 32, 64)), (0.2, 32, (64, 64, 128)), (0.4, 128, (64, 96, 128))),
        _level(128, (0.2, 32, (64, 64, 128)), (0.4, 64, (128, 128, 256)), (0.8, 128, (128, 128, 256))),
    ),
}
"""The levels of the paper's classifiers: one scale, and several."""


@register
class PointNet2(PointsEncoder, WeightedPart):
    """Points [B, N, 3 + C] -> tokens [B, centres, width] of the last level, or an embedding [B, whole[-1]].

    Set abstractions, one after the other: centres c_j by farthest point sampling, from the point farthest from the mean
    on; around each the points p_i with |p_i - c_j| <= radius, the nearest `neighbours` of them (the nearest again where
    there are fewer); f_j = max_i h([p_i - c_j; f_i]) with h of `widths` (linear, batch norm, ReLU), joined over the
    scales. `output: pooled` adds the level over everything, max_j h([c_j; f_j]) with `whole` as widths. `variant` takes
    the levels of the paper's single-scale or multi-scale classifier; `levels` gives your own. What comes out does not
    depend on the order of the points: of a ball the nearest points are taken, where the paper's code takes the first.
    Source: arXiv 1706.02413. Parameters: for each scale, and for `whole`, the sum over successive widths of a b + 2 b,
    beginning at 3 + the width before.
    """

    type = "encoder.pointnet2"

    variant: Literal["ssg", "msg"] = Field("ssg", description="the paper's levels of one scale, or of several")
    levels: tuple[Level, ...] | None = Field(None, min_length=1, max_length=8, description="levels in their place")
    whole: tuple[Width, ...] = Field((256, 512, 1024), min_length=1, max_length=16, description="widths of the pooling")
    output: Literal["tokens", "pooled"] = Field("tokens", description="the last level's centres, or one embedding")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        ball = {"radius": 1.5, "neighbours": 4, "widths": [8, 12]}
        one = [{"centres": 6, "scales": [ball]}]
        two = [{"centres": 12, "scales": [ball, {**ball, "neighbours": 6, "radius": 2.5}]}, {**one[0], "centres": 4}]

        def mlp(*widths: int) -> int:
            return sum(a * b + 2 * b for a, b in pairwise(widths))

        pooled = 2 * mlp(5, 8, 12) + mlp(3 + 24, 8, 12) + mlp(3 + 12, 16)
        return [
            (cls.after_points(levels=one), mlp(3, 8, 12)),
            (cls.after_points(extra=2, levels=two, output="pooled", whole=[16]), pooled),
        ]

    @model_validator(mode="after")
    def _fewer_each_time(self) -> Self:
        centres = [level.centres for level in self.chosen]
        if centres != sorted(centres, reverse=True):
            raise ValueError("`levels` have fewer centres from one to the next")
        return self

    @property
    def chosen(self) -> tuple[Level, ...]:
        """The levels, in order."""
        return self.levels or PUBLISHED[self.variant]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        points, size = inputs["in"], inputs["in"].size("points")
        self.check_counts(points, centres=self.chosen[0].centres)
        for level in self.chosen:
            most = max(scale.neighbours for scale in level.scales)
            if most > size:
                raise WireError("in", f"`neighbours` is {most}, where a level sees {size} points; change either")
            size = level.centres
        pooled = self.output == "pooled"
        return self.points_value(points, size, self.whole[-1] if pooled else self.chosen[-1].width, pooled)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._pointnet2 import PointNet2Tower

        levels = [(x.centres, [(s.radius, s.neighbours, s.widths) for s in x.scales]) for x in self.chosen]
        whole = self.whole if self.output == "pooled" else None
        return PointNet2Tower(inputs["in"].size("channels"), levels, whole)

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        from components.encoders._states import place_exactly

        place_exactly(module, state, ("",), self.weights)
