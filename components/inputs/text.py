"""Text columns come in here."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from assembler.part import Part
from assembler.registry import register
from assembler.values import Dim, Value, value


@register
class TextInput(Part):
    """A text column of the data, as text [B].

    Wired to a slot of an LLM's prompt it fills the slot with words, as the slot's own data column would; it is a node
    so that one text can feed several prompts. Parameters: 0.
    """

    type = "input.text"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"nodes": {"part": {"type": cls.type}}}, None)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {node: "text"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("text")
