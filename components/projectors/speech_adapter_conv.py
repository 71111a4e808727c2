"""A transformer between a speech encoder and an LLM with strided convolutions inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import shorter, strided, token_count
from components.projectors._speech import SpeechAdapter

if TYPE_CHECKING:
    from torch import nn

CONVOLUTIONS, STRIDE = 2, 2


@register
class SpeechAdapterConv(SpeechAdapter):
    """The transformer of `speech_adapter_base` with two convolutions of stride 2 after its second layer: 4 frames a
    token. Tokens [B, T, in] -> tokens [B, ceil(ceil(T / 2) / 2), out].

    Each convolution is followed by a GELU and has a `kernel` of odd length k. The conv-based adapter of "How to connect
    speech foundation models and LLMs?". Parameters: those of speech_adapter_base, plus 2 * (k * d^2 + d).
    """

    type = "projector.speech_adapter_conv"

    kernel: Literal[3, 5, 7, 9] = Field(3, description="k, frames that a convolution sees")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [cls.small(2 * (3 * 8 * 8 + 8)), cls.small(2 * (5 * 8 * 8 + 8), kernel=5)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        tokens = strided(token_count(source), STRIDE, CONVOLUTIONS)
        facts = shorter(source, STRIDE**CONVOLUTIONS)
        return value("tokens", ragged=source.ragged, facts=facts, tokens=tokens, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._speech_layers import Convs

        return self.tower(inputs, output, Convs(self.hidden, CONVOLUTIONS, self.kernel, STRIDE))
