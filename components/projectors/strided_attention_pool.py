"""Fewer tokens in time, each a weighted mean that says what of its window matters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import TokenProjector, shorter, strided, token_count

if TYPE_CHECKING:
    from torch import nn


@register
class StridedAttentionPool(TokenProjector):
    """y_j = W sum_t softmax_t(q x_t) x_t + b over the s tokens of window j: [B, T, in] -> [B, ceil(T / s), out].

    q is learned and starts at zero, so that training starts at the mean of a window. Padding has no weight; a window
    with one real token is real. For speech into an LLM: the length reduction and projection that arXiv 2407.09209 puts
    between a speech encoder and an LLM. Parameters: in + in * out + out.
    """

    type = "projector.strided_attention_pool"
    masks = "own"

    stride: int = Field(4, ge=1, le=1000, description="s, tokens that become one")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            (cls.after_ears(stride=5, width=12), 16 + 16 * 12 + 12),
            (cls.after_an_encoder(96, stride=2, width=12), 256 + 256 * 12 + 12),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        tokens, facts = strided(token_count(source), self.stride), shorter(source, self.stride)
        return value("tokens", ragged=source.ragged, facts=facts, tokens=tokens, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._pooling import AttentionPoolLayer

        return AttentionPoolLayer(inputs["in"].size("width"), output.size("width"), self.stride)
