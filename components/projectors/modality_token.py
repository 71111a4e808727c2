"""A learned token that says what follows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import EARS, SameWidth, token_count

if TYPE_CHECKING:
    from torch import nn


@register
class ModalityToken(SameWidth):
    """y = [m; x] with a learned m [D]: tokens [B, T, D] -> tokens [B, 1 + T, D]; one such part a modality.

    m starts as a normal of 0.02. Source: "Enhancing Model Performance: Another Approach to Vision-Language Instruction
    Tuning", after LaVIN. Parameters: D.
    """

    type = "projector.modality_token"
    masks = "own"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        heard = {"nodes": {**EARS, "part": {"type": cls.type}}, "edges": ["sound -> ears", "ears -> part"]}
        return [(heard, 16)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source, tokens = inputs["in"], token_count(inputs["in"])
        count = tokens + 1 if isinstance(tokens, int) else None
        return value("tokens", ragged=source.ragged, tokens=count, width=source["width"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._layers import ModalityTokenLayer

        return ModalityTokenLayer(output.size("width"))
