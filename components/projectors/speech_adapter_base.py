"""A transformer between a speech encoder and an LLM that keeps every frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.registry import register
from assembler.values import Dim, Value
from components.projectors._speech import SpeechAdapter

if TYPE_CHECKING:
    from torch import nn


@register
class SpeechAdapterBase(SpeechAdapter):
    """y = W_out blocks(W_in x): tokens [B, T, in] -> tokens [B, T, out], one for each frame.

    A bidirectional transformer of `layers` pre-norm layers, `hidden` wide; the frames bring their positions from the
    encoder. The Base adapter of "How to connect speech foundation models and LLMs?".
    Parameters: (in * d + d) + L * (4 * (d^2 + d) + 2 * d * f + f + d + 4 * d) + (d * out + out).
    """

    type = "projector.speech_adapter_base"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [cls.small(0)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        plain = super().shape(inputs, want, base)
        return replace(plain, ragged=inputs["in"].ragged)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        return self.tower(inputs, output)
