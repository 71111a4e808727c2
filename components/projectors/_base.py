"""What projectors share: tokens in, tokens out, the width that the consumer needs, and the facts that go past them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from assembler.part import Masks, Part, WireError
from assembler.values import AXES, Dim, Value, value


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


class SameWidth(Part):
    """tokens [B, T, D] -> tokens [B, T', D]: what its consumer needs is what it takes."""

    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"in": ("tokens", "embedding", "features")}

    def passes(self, port: str) -> bool:
        return port == "in"

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        return value("tokens", facts=dict(source.facts), tokens=token_count(source), width=source["width"])


class Joining(Part):
    """Several inputs of one width into one; `inputs` names their ports."""

    masks: ClassVar[Masks] = "own"

    inputs: tuple[str, ...] = Field(("first", "second"), min_length=2, max_length=64, description="names of the ports")

    @field_validator("inputs")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        odd = next((name for name in names if not name.isidentifier()), None)
        if odd is not None or len(set(names)) < len(names):
            raise ValueError("the names of ports are different words of letters, digits and _; correct them")
        return names

    def ports(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(self.inputs, ("tokens", "embedding", "features"))

    def port_fix(self, port: str) -> tuple[str, Any] | None:
        return ("inputs", [*self.inputs, port]) if port.isidentifier() else None

    def passes(self, port: str) -> bool:
        return True

    def one_width(self, inputs: dict[str, Value]) -> Dim:
        """The width of every input, where it is known.

        Raises:
            WireError: they differ.
        """
        known = [(port, source["width"]) for port, source in inputs.items() if source["width"] is not None]
        for port, width in known:
            if width != known[0][1]:
                has = f"`{known[0][0]}` is {known[0][1]} wide and `{port}` {width}"
                raise WireError(port, f"{has}; put a projector before one of them")
        return known[0][1] if known else None

    @classmethod
    def after_both(cls, **knobs: Any) -> dict[str, Any]:
        """A small spec with 24 ragged tokens, 4 tokens and one embedding, all 16 wide."""
        nodes = {
            **EARS,
            "photo": {"type": "input.image", "size": [64, 64]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "tokens": {"type": "projector.linear", "width": 16},
            "one": {"type": "projector.adaptive_pool", "tokens": 1, "width": 16},
            "part": {"type": cls.type, **knobs},
        }
        return {"nodes": nodes, "edges": ["sound -> ears", "photo -> eyes", "eyes -> tokens", "eyes -> one"]}


TALK: dict[str, Any] = {
    "type": "backbone.causal_lm",
    "arch": "llama",
    "config": {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    },
    "prompt": "{photo} {answer}",
}
"""A node that is an LLM of width 32, for examples of parts that speak its words."""
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


def tokens_in(source: Value) -> int:
    """The same, where it must be known."""
    return 1 if source.kind == "embedding" else source.size(AXES[source.kind][1])


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
