"""Two linears with a narrow middle, from class tokens to an LLM."""

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
class VisualNeck(TokenProjector):
    """y = W_t a(W_v x + b_v) + b_t on every token, n wide in between: tokens [B, T, in] -> tokens [B, T, out].

    Meant for the class tokens of several layers of an image encoder, joined by `projector.concat`; put
    `projector.modality_token` after it. Source: "Enhancing Model Performance: Another Approach to Vision-Language
    Instruction Tuning". Parameters: in * n + n + n * out + out.
    """

    type = "projector.visual_neck"

    neck: int = Field(128, ge=1, le=65_536, description="n, width in between")
    activation: Literal["silu", "gelu", "relu"] = Field("silu", description="a")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [(cls.after_an_encoder(width=24, neck=8), 256 * 8 + 8 + 8 * 24 + 24)]

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import Mlp

        sizes = (inputs["in"].size("width"), output.size("width"))
        return Mlp(*sizes, depth=2, hidden=self.neck, activation=self.activation)
