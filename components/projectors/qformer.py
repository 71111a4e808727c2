"""BLIP-2's bridge: a fixed number of learned queries read the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._querying import Querying

if TYPE_CHECKING:
    from torch import nn


@register
class QFormer(Querying):
    """n learned queries [n, d] through L layers of BERT, every second of which, from the first on, also attends to the
    tokens; then one linear: tokens [B, T, in] -> tokens [B, n, out]. Padding is not attended to, and none is left.

    Fresh weights: normal of 0.02. transformers' Blip2QFormerModel; arXiv 2301.12597.
    Parameters: n * d + 2 * d + L * (4 * (d^2 + d) + 2 * d * f + f + d + 4 * d)
    + ceil(L / 2) * (2 * (d^2 + d) + 2 * (in * d + d) + 2 * d) + d * out + out.
    """

    type = "projector.qformer"

    queries: int = Field(32, ge=1, le=10_000, description="n, tokens out")
    layers: int = Field(12, ge=1, le=128, description="L, layers of the transformer")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {"width": 20, "hidden": 8, "layers": 3, "heads": 2, "feed_forward": 12, "queries": 5}
        return [
            (cls.after_ears(**small), cls.parameters(16, 20, 8, 12, 3, 5, crossing=2)),
            (cls.after_an_encoder(64, **small), cls.parameters(256, 20, 8, 12, 3, 5, crossing=2)),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("tokens", tokens=self.queries, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._qformer import QFormerLayer

        return QFormerLayer(self.reader(inputs, output, self.queries, every=2))
