"""What projectors share: tokens in, tokens out, the width that the consumer needs, and the facts that go past them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from assembler.part import Masks, Part, WireError
from assembler.values import Dim, Value, value


class TokenProjector(Part):
    """tokens [B, T, in] -> tokens [B, T, out], each token by itself; an embedding is taken as one token."""

    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"in": ("tokens", "embedding", "features")}
    masks: ClassVar[Masks] = "kept"

    width: int | None = Field(None, ge=1, le=1_000_000, description="output width; by default what the consumer needs")

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        return value("tokens", facts=dict(source.facts), tokens=token_count(source), width=self.width or want)

    @classmethod
    def after_an_encoder(cls, size: int = 32, **knobs: Any) -> dict[str, Any]:
        """A small spec in which the projector reads (size / 32)^2 tokens of width 256."""
        nodes = {
            "photo": {"type": "input.image", "size": [size, size]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "part": {"type": cls.type, **knobs},
        }
        return {"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}

    @classmethod
    def after_ears(cls, **knobs: Any) -> dict[str, Any]:
        """A small spec in which the projector reads 24 tokens of width 16, 50 a second, with padding among them."""
        return {"nodes": {**EARS, "part": {"type": cls.type, **knobs}}, "edges": ["sound -> ears", "ears -> part"]}


EARS: dict[str, Any] = {
    "sound": {"type": "input.audio", "seconds": 0.48},
    "ears": {
        "type": "encoder.whisper",
        "config": {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "max_source_positions": 50},
    },
}
"""Nodes that give 24 ragged tokens of width 16, 50 a second; the sound is wired to the ears by the spec."""


def token_count(source: Value) -> Dim:
    """Tokens on a wire; an embedding is one."""
    return 1 if source.kind == "embedding" else source.shape[1]


def shorter(source: Value, stride: float) -> dict[str, Any]:
    """The facts of tokens that are `stride` times as rare in time as those of `source`."""
    rate = source.fact("rate")
    return {} if rate is None else {"rate": rate / stride}


def strided(tokens: Dim, stride: int, times: int = 1) -> Dim:
    """Tokens left where one in `stride` is kept, the first of each, `times` over."""
    for _ in range(times if isinstance(tokens, int) else 0):
        tokens = -(-tokens // stride)  # type: ignore[operator]
    return tokens


def grid_of(source: Value) -> tuple[int, int, int] | None:
    """(frames, rows, columns) of tokens that lie row by row, a square where nothing says more; None if not known yet.

    Raises:
        WireError: the tokens are no such grid.
    """
    tokens = token_count(source)
    if not isinstance(tokens, int):
        return None
    frames, grid = source.fact("frames") or 1, source.fact("grid")
    if grid is not None:
        rows, columns = grid
        if frames * rows * columns != tokens:
            held = f"{frames} x {rows} x {columns}" if frames > 1 else f"{rows} x {columns}"
            raise WireError("in", f"{tokens} tokens are not its grid of {held}; leave class tokens out")
        return frames, rows, columns
    side = math.isqrt(tokens // frames)
    if frames * side * side != tokens:
        raise WireError("in", f"{tokens} tokens are no square grid; leave class tokens and odd sizes out")
    return frames, side, side


def grid_facts(source: Value, rows: int, columns: int) -> dict[str, Any]:
    """The facts of a grid of another size made of the one of `source`."""
    return {**{key: item for key, item in source.facts if key == "frames"}, "grid": (rows, columns)}
