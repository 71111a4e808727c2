"""The plain linear bridge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import Part
from assembler.registry import register
from assembler.values import Dim, Value, value

if TYPE_CHECKING:
    from torch import nn


@register
class LinearProjector(Part):
    """y = W x + b on every token: tokens [B, T, in] -> tokens [B, T, out]; an embedding is one token.

    `out` follows from the consumer unless `width` says it; `in` follows from the wire. The bridge of LLaVA
    (arXiv 2304.08485). Parameters: in * out + out (without `bias`: in * out).
    """

    type = "projector.linear"
    accepts = {"in": ("tokens", "embedding", "features")}

    width: int | None = Field(None, ge=1, le=1_000_000, description="output width; by default what the consumer needs")
    bias: bool = Field(True, description="add b")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def spec(**knobs: Any) -> dict[str, Any]:
            nodes = {
                "photo": {"type": "input.image", "size": [32, 32]},
                "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
                "part": {"type": cls.type, **knobs},
            }
            return {"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}

        width = 256
        return [
            (spec(width=24), width * 24 + 24),
            (spec(width=24, bias=False), width * 24),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        tokens = 1 if source.kind == "embedding" else source.shape[1]
        return value("tokens", tokens=tokens, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import Mlp

        return Mlp(inputs["in"].size("width"), output.size("width"), depth=1, bias=self.bias)
