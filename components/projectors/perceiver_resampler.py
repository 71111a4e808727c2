"""Flamingo's bridge: learned latents read tokens and themselves, block after block."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import TokenProjector, token_count

if TYPE_CHECKING:
    from torch import nn


@register
class PerceiverResampler(TokenProjector):
    """z <- z + attention(norm(z), [norm(x); norm(z)]), z <- z + feed_forward(norm(z)), L times over learned latents z
    [n, in]; then a norm and one linear: tokens [B, T, in] -> tokens [B, n, out].

    Attention is a = heads * head_size wide; it and the feed-forward, m * in wide inside, have no biases. A video's
    tokens get a learned vector for their frame, F in all. Padding is not attended to, and none is left. Fresh latents
    and frame vectors: normal of 0.02. Source: Flamingo (arXiv 2204.14198).
    Parameters: n * in + F * in + L * (6 * in + 4 * in * a + 2 * m * in^2) + 2 * in + in * out + out.
    """

    type = "projector.perceiver_resampler"
    masks = "own"

    latents: int = Field(64, ge=1, le=10_000, description="n, tokens out")
    layers: int = Field(6, ge=1, le=128, description="L, blocks")
    heads: int = Field(8, ge=1, le=1024, description="attention heads")
    head_size: int = Field(64, ge=1, le=1024, description="width of a head")
    multiple: int = Field(4, ge=1, le=16, description="m, the feed-forward's hidden width over in")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {"width": 20, "latents": 5, "layers": 2, "heads": 2, "head_size": 4, "multiple": 2}

        def count(d: int) -> int:
            return 5 * d + 2 * (6 * d + 4 * d * 8 + 2 * 2 * d * d) + 2 * d + d * 20 + 20

        return [(cls.after_ears(**small), count(16)), (cls.after_an_encoder(64, **small), count(256))]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        tokens, frames = token_count(inputs["in"]), inputs["in"].fact("frames")
        if frames and isinstance(tokens, int) and tokens % frames:
            raise WireError("in", f"{tokens} tokens are no whole number a frame of {frames}; leave class tokens out")
        return value("tokens", tokens=self.latents, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._perceiver import Perceiver

        sizes = (inputs["in"].size("width"), output.size("width"), self.latents, self.layers, self.heads)
        return Perceiver(*sizes, self.head_size, self.multiple, inputs["in"].fact("frames") or 0)
