"""Text out of frames, without an LLM."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import ObjectivePart
from assembler.registry import register
from assembler.values import Dim, Value, value
from components._alphabet import Alphabet
from components.projectors._base import EARS

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class Ctc(ObjectivePart):
    """logits_t = W x_t + b on every token: tokens [B, T, in] -> logits [B, T, V], read by connectionist temporal
    classification.

    The loss is -log p(transcript | logits) of the text column `transcript`; the answer is the best label at every real
    token, repeats taken once and blanks left out. V labels: the blank and the characters of `alphabet` or, by default,
    the 256 bytes of UTF-8. A transcript that has no room in its sample's tokens gives no loss. Source: Graves et al.,
    2006.
    Parameters: in * V + V.
    """

    type = "head.ctc"
    accepts = {"in": ("tokens", "features")}
    extras = ("transcript",)
    targets = ("transcript",)
    masks = "own"
    answers = "text"
    metrics = ("wer", "cer")

    alphabet: str | None = Field(None, min_length=1, max_length=10_000, description="characters; by default all bytes")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def spec(**knobs: Any) -> dict[str, Any]:
            nodes = {**EARS, "part": {"type": cls.type, **knobs}}
            return {"nodes": nodes, "edges": ["sound -> ears", "ears -> part"]}

        return [(spec(), 16 * 257 + 257), (spec(alphabet="abc "), 16 * 5 + 5)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"transcript": "text"}

    def expected(self) -> tuple[str, ...]:
        return ("transcript",)

    def answer(self, output: dict[str, Any]) -> list[Any]:
        best, mask, alphabet = output["logits"].argmax(-1), output["mask"], Alphabet(self.alphabet)
        rows = [
            row if mask is None else row[real] for row, real in zip(best, best if mask is None else mask, strict=True)
        ]
        return [alphabet.decode(row.tolist()) for row in rows]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("logits", classes=Alphabet(self.alphabet).size)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._heads import CtcHead

        return CtcHead(inputs["in"].size("width"), Alphabet(self.alphabet).size)

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"transcript": torch.ones(batch, 4, dtype=torch.long)}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        column, alphabet = graph.column("transcript"), Alphabet(self.alphabet)
        return lambda rows: {"transcript": alphabet.batch(node, rows, column)}
