"""PAVE's patch: a video's tokens learn from a side channel without becoming more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import EARS, token_count, tokens_in

if TYPE_CHECKING:
    from torch import nn

TOKENS = ("tokens", "embedding", "features")


@register
class SideChannel(Part):
    """y = projected + norm(W_2 gelu(W_1 q)), q = L blocks of [q <- q + attention(q, z); q <- q + W_4 gelu(W_3 norm(q))]
    over q = in W_v + b_v and z = side W_s + b_s: in [B, T S, d_v], projected [B, T S, out], side [B, T_s S_s, d_s] ->
    tokens [B, T S, out].

    `in` are the encoder's tokens before its projector and `projected` those after it. Attention has no output
    projection and keeps to time: the side's steps are dealt out to the T frames, in order and evenly, and a frame sees
    its own; both are taken to span the same time. T and T_s are the wires' `frames`; a side without has one step a
    token, and a picture is one frame that sees all. The last norm's weight and bias start at zero, so that an untrained
    patch adds nothing, bit for bit. Source: PAVE.
    Parameters: with c = `hidden`, (d_s * c + c) + (d_v * c + c) + L * (3 * (c^2 + c) + 2 * c + 4 * c^2) + (2 * c^2 + 2
    * c) + (2 * c * out + out) + 2 * out.
    """

    type = "projector.side_channel"
    accepts = {"in": TOKENS, "projected": ("tokens",), "side": TOKENS}
    masks = "own"

    hidden: int = Field(512, ge=1, le=65_536, description="c, width of the patch")
    layers: int = Field(2, ge=1, le=64, description="L, blocks")
    heads: int = Field(4, ge=1, le=1024, description="attention heads, which divide c")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        nodes = {
            **EARS,
            "photo": {"type": "input.image", "size": [64, 64]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "bridge": {"type": "projector.linear", "width": 20},
            "part": {"type": cls.type, "hidden": 8, "heads": 2},
        }
        edges = ["photo -> eyes", "eyes -> bridge", "sound -> ears"]
        edges += ["eyes -> part", "bridge -> part.projected", "ears -> part.side"]
        return [({"nodes": nodes, "edges": edges}, cls.parameters(16, 256, 20, 8, 2))]

    @staticmethod
    def parameters(side: int, inner: int, outer: int, c: int, layers: int) -> int:
        """The formula of the docstring."""
        block = 3 * (c * c + c) + 2 * c + 4 * c * c
        ends = (side * c + c) + (inner * c + c) + (2 * c * c + 2 * c) + (2 * c * outer + outer) + 2 * outer
        return ends + layers * block

    def passes(self, port: str) -> bool:
        return port == "projected"

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        video, projected = inputs["in"], inputs["projected"]
        tokens, count = token_count(video), projected["tokens"]
        if isinstance(tokens, int) and isinstance(count, int) and tokens != count:
            raise WireError(
                "projected", f"`in` has {tokens} tokens and `projected` {count}; wire the two around one projector"
            )
        if self.hidden % self.heads:
            raise WireError("in", f"`heads` {self.heads} does not divide `hidden` {self.hidden}; change one")
        for port, source in (("in", video), ("side", inputs["side"])):
            size, steps = token_count(source), source.fact("frames")
            if isinstance(size, int) and steps and size % steps:
                raise WireError(port, f"{size} tokens are no whole number a frame of {steps}; leave class tokens out")
        facts = dict(projected.facts)
        return value("tokens", ragged=projected.ragged, facts=facts, tokens=count, width=projected["width"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._crossing import SideChannelLayer

        video, side = inputs["in"], inputs["side"]
        frames = video.fact("frames") or 1
        times = side.fact("frames") or tokens_in(side)
        sizes = (video.size("width"), side.size("width"), output.size("width"), self.hidden, self.layers, self.heads)
        return SideChannelLayer(*sizes, frames, times)
