"""The multi-layer bridge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.registry import register
from assembler.values import Value
from components.projectors._base import TokenProjector

if TYPE_CHECKING:
    from torch import nn


@register
class MlpProjector(TokenProjector):
    """y = W_n a(... a(W_1 x + b_1) ...) + b_n on every token: tokens [B, T, in] -> tokens [B, T, out].

    `depth` counts the linears; the hidden width is `hidden`, by default `out`. An embedding is taken as one token.
    With `norm`, a LayerNorm over `in` comes first. The bridge of LLaVA-1.5 (arXiv 2310.03744) at depth 2 with GELU.
    Parameters: in * hidden + hidden + (depth - 2) * (hidden^2 + hidden) + hidden * out + out, plus 2 * in with `norm`.
    """

    type = "projector.mlp"

    depth: int = Field(2, ge=1, le=64, description="number of linear layers")
    hidden: int | None = Field(None, ge=1, le=1_000_000, description="hidden width; by default the output width")
    activation: Literal["gelu", "relu", "silu"] = Field("gelu", description="between the linears")
    norm: bool = Field(False, description="LayerNorm on the input")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        three = 256 * 8 + 8 + 8 * 8 + 8 + 8 * 24 + 24 + 2 * 256
        return [
            (cls.after_an_encoder(width=24), 256 * 24 + 24 + 24 * 24 + 24),
            (cls.after_an_encoder(width=24, depth=1), 256 * 24 + 24),
            (cls.after_an_encoder(width=24, depth=3, hidden=8, norm=True), three),
        ]

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import Mlp

        inner, outer = inputs["in"].size("width"), output.size("width")
        return Mlp(inner, outer, self.depth, hidden=self.hidden, activation=self.activation, norm=self.norm)
