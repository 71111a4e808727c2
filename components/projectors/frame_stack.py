"""Fewer, wider tokens in time."""

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
class FrameStack(TokenProjector):
    """y_j = W [x_kj; ...; x_kj+k-1] + b: tokens [B, T, in] -> tokens [B, ceil(T / k), out], for sound most of all.

    `stack` is k. What the last stack lacks is filled with zeros, and so is
    padding; a stack with one real token is real. An embedding is taken as one token.
    Parameters: stack * in * out + out.
    """

    type = "projector.frame_stack"
    masks = "own"

    stack: int = Field(5, ge=1, le=1000, description="k, successive tokens that become one")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            (cls.after_ears(stack=5, width=12), 5 * 16 * 12 + 12),
            (cls.after_an_encoder(stack=2, width=24), 2 * 256 * 24 + 24),
        ]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        tokens, facts = strided(token_count(source), self.stack), shorter(source, self.stack)
        return value("tokens", ragged=source.ragged, facts=facts, tokens=tokens, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import FrameStackLayer

        return FrameStackLayer(inputs["in"].size("width"), output.size("width"), self.stack)
