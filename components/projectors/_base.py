"""What the plain projectors share: tokens in, as many tokens out, the width that the consumer needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from assembler.part import Masks, Part
from assembler.values import Dim, Value, value


class TokenProjector(Part):
    """tokens [B, T, in] -> tokens [B, T, out], each token by itself; an embedding is taken as one token."""

    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"in": ("tokens", "embedding", "features")}
    masks: ClassVar[Masks] = "kept"

    width: int | None = Field(None, ge=1, le=1_000_000, description="output width; by default what the consumer needs")

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        tokens = 1 if source.kind == "embedding" else source.shape[1]
        return value("tokens", tokens=tokens, width=self.width or want)

    @classmethod
    def after_an_encoder(cls, **knobs: Any) -> dict[str, Any]:
        """A small spec in which the projector reads tokens of width 256."""
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "part": {"type": cls.type, **knobs},
        }
        return {"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}
