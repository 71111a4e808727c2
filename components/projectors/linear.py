"""The plain linear bridge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.values import Value
from components.projectors._base import TokenProjector

if TYPE_CHECKING:
    from torch import nn


@register
class LinearProjector(TokenProjector):
    """y = W x + b on every token: tokens [B, T, in] -> tokens [B, T, out]; an embedding is one token.

    `out` follows from the consumer unless `width` says it; `in` follows from the wire. The bridge of LLaVA
    (arXiv 2304.08485). Parameters: in * out + out (without `bias`: in * out).
    """

    type = "projector.linear"

    bias: bool = Field(True, description="add b")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            (cls.after_an_encoder(width=24), 256 * 24 + 24),
            (cls.after_an_encoder(width=24, bias=False), 256 * 24),
        ]

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import Mlp

        return Mlp(inputs["in"].size("width"), output.size("width"), depth=1, bias=self.bias)
