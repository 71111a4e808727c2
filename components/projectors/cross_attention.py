"""Tokens that look at other tokens, through gates that open in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.values import Dim, Value
from components.projectors._base import EARS, SameWidth

if TYPE_CHECKING:
    from torch import nn


@register
class CrossAttention(SameWidth):
    """x <- x + tanh(g_1) attention(norm(x), c), then x <- x + tanh(g_2) feed_forward(norm(x)), L times: tokens
    [B, T, D] that read a `context` [B, K, C] -> tokens [B, T, D].

    g_1 and g_2 start at `gate`. At zero an untrained part passes its tokens on bit for bit, as tokens that an LLM knows
    need it; tokens that are learned anew find what to look at much sooner with open gates. Attention is a = heads *
    head_size wide; it and the feed-forward, m * D wide inside, have no biases. Padding of the context is not attended
    to. The gated layer of Flamingo (arXiv 2204.14198), whose gates start at zero.
    Parameters: L * (4 * D + 2 * D * a + 2 * C * a + 2 * m * D^2 + 2).
    """

    type = "projector.cross_attention"
    accepts = {"in": ("tokens", "embedding", "features"), "context": ("tokens", "embedding", "features")}
    masks = "own"

    layers: int = Field(1, ge=1, le=128, description="L, blocks")
    heads: int = Field(8, ge=1, le=1024, description="attention heads")
    head_size: int = Field(64, ge=1, le=1024, description="width of a head")
    multiple: int = Field(4, ge=1, le=16, description="m, the feed-forward's hidden width over D")
    gate: float = Field(0.0, ge=-10, le=10, description="where g_1 and g_2 start")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {"type": cls.type, "layers": 2, "heads": 2, "head_size": 4, "multiple": 2}
        nodes = {
            **EARS,
            "photo": {"type": "input.image", "size": [64, 64]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "part": small,
        }
        edges = ["sound -> ears", "photo -> eyes"]

        def count(width: int, context: int) -> int:
            return 2 * (4 * width + 2 * width * 8 + 2 * context * 8 + 2 * 2 * width * width + 2)

        reading = {"nodes": nodes, "edges": [*edges, "eyes -> part", "ears -> part.context"]}
        hearing = {"nodes": nodes, "edges": [*edges, "ears -> part", "eyes -> part.context"]}
        return [(reading, count(256, 16)), (hearing, count(16, 256))]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return replace(super().shape(inputs, want, base), ragged=inputs["in"].ragged)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._crossing import CrossAttentionLayer

        sizes = (inputs["in"].size("width"), inputs["context"].size("width"), self.layers, self.heads)
        return CrossAttentionLayer(*sizes, self.head_size, self.multiple, self.gate)
