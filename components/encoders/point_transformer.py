"""A transformer over groups of points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value
from components.encoders._base import LayeredEncoder
from components.encoders._points import PointsEncoder

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
class PointTransformer(PointsEncoder, LayeredEncoder):
    """Points [B, N, 3 + C] -> tokens [B, groups, width], as Point-BERT and Point-MAE read clouds.

    `groups` centres c_j are taken by farthest point sampling, from the point farthest from the mean on, and the
    `neighbours` nearest points of each, less c_j, make a group. A mini-PointNet turns each group into a token t_j:
    h = W2 relu(bn(W1 p)) of widths 128 and 256, then W4 relu(bn(W3 [max h; h])) of widths 512 and `width`, and the
    maximum over the group. The position W6 gelu(W5 c_j) is added before every block: x <- block(x + pos), pre-norm
    attention and a GELU MLP of four times the width. What comes out does not depend on the order of the points.
    `layer` and `mix` read earlier blocks, `output: pooled` gives the mean over the tokens. While it learns, each cloud
    may be turned about z, have its y mirrored every second time, each axis stretched by 1 - s to 1 + s, and each place
    moved by a normal draw of deviation `jitter`; with `normals` the first three extra channels turn with it. Weights:
    this part's own, or a Point-MAE encoder under its own names. Source: arXiv 2111.14819 and 2203.06604.
    Parameters: with d the width and c = 3 + C, (c * 128 + 3 * 128 + 128 * 256 + 256) + (512 * 512 + 3 * 512 + 512 d
    + d) + (4 * 128 + 128 d + d) + depth * (12 d^2 + 10 d) + 2 d; with `mix` also depth + 2.
    """

    type = "encoder.point_transformer"

    groups: int = Field(64, ge=1, le=4096, description="centres, and so tokens")
    neighbours: int = Field(32, ge=1, le=1024, description="points of a group")
    width: int = Field(384, ge=1, le=16_384, description="of a token")
    depth: int = Field(12, ge=1, le=200, description="blocks")
    heads: int = Field(6, ge=1, le=256, description="of the attention; divides the width")
    drop_path: float = Field(0.1, ge=0, lt=1, description="how often the last block is left out while it learns")
    turn: Literal["none", "quarter", "any"] = Field("none", description="about z while it learns")
    mirror: bool = Field(False, description="every second cloud while it learns")
    stretch: float = Field(0.0, ge=0, lt=1, description="of each axis, at most, while it learns")
    jitter: float = Field(0.0, ge=0, le=1, description="deviation of each place while it learns")
    normals: bool = Field(False, description="the first three extra channels are normals")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        d, depth = 16, 2
        small: dict[str, Any] = {"groups": 8, "neighbours": 4, "width": d, "depth": depth, "heads": 2}

        def count(c: int) -> int:
            first = c * 128 + 3 * 128 + 128 * 256 + 256
            second = 512 * 512 + 3 * 512 + 512 * d + d
            return first + second + 4 * 128 + 128 * d + d + depth * (12 * d * d + 10 * d) + 2 * d

        return [
            (cls.after_points(**small), count(3)),
            (cls.after_points(extra=3, short="repeat", mix=True, output="pooled", **small), count(6) + depth + 2),
            (cls.after_points(extra=3, turn="any", mirror=True, stretch=0.2, normals=True, **small), count(6)),
        ]

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide the width of {self.width}")
        return self

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        self.check_counts(inputs["in"], groups=self.groups, neighbours=self.neighbours)
        self.block(self.depth)
        if self.normals and inputs["in"].size("channels") < 6:
            raise WireError(
                "in", "`normals` are three extra channels, and the cloud has fewer; give the input `extra: 3`"
            )
        return self.points_value(inputs["in"], self.groups, self.width, self.output == "pooled")

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._point_transformer import PointTransformerTower
        from components.encoders._unsettled import Unsettled

        knobs = {key: getattr(self, key) for key in ("groups", "neighbours", "width", "depth", "heads", "drop_path")}
        reading = (self.block(self.depth), self.mix, self.output == "pooled")
        unsettled = Unsettled(self.turn, self.mirror, self.stretch, self.jitter, self.normals)
        return PointTransformerTower(inputs["in"].size("channels"), *reading, unsettled, **knobs)

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        from components.encoders._point_transformer import place_points

        place_points(module, state, self.weights)
