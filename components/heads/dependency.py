"""The head of every word of a sentence, as a dependency parser tells it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.bundle.manifest import TextProcessor
from assembler.errors import AssemblerError
from assembler.part import ObjectivePart
from assembler.registry import register
from assembler.values import Dim, Value, value
from components._words import text_processor

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class Dependency(ObjectivePart):
    """s_ij = (U x_i) . (V x_j) / sqrt(r): whether token j is the head of token i; tokens [B, T, in] -> [B, T, T].

    The data column `heads` holds as text, with spaces between, the number of the head of every word of the text that
    the encoder reads, from 1, and 0 for the root, as a CoNLL-U file has them; words are what stands between spaces. A
    word is its first token and the root the text's first, [CLS]. The loss is the mean binary cross-entropy over pairs
    of a word and what may be its head. It teaches K-Adapter's linguistic adapter (arXiv 2002.01808).
    Parameters: 2 * in * r with r = `rank`.
    """

    type = "head.dependency"
    accepts = {"in": ("tokens",)}
    extras = ("words", "heads")
    targets = ("words", "heads")
    masks = "own"

    rank: int = Field(128, ge=1, le=65_536, description="r, in which dependents and heads meet")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        from components.encoders.hf_text import HfText

        encoder = HfText.examples()[0][0]["nodes"]["part"]
        nodes = {"text": {"type": "input.text"}, "read": encoder, "part": {"type": cls.type, "rank": 5}}
        return [({"nodes": nodes, "edges": ["text -> read", "read -> part"]}, 2 * 16 * 5)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"heads": "text"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("logits", classes=inputs["in"]["tokens"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._heads import DependencyHead

        return DependencyHead(inputs["in"].size("width"), self.rank)

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {key: torch.zeros(batch, 1, dtype=torch.long) for key in self.extras}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        encoder, processor = text_processor(node, graph, "and words have heads")
        text = graph.incoming[encoder][0].source
        return Sentences(node, graph.column(text), graph.column("heads"), processor)


class Sentences:
    """Data rows -> words [B, W] and heads [B, W], the token of each word and of its head; -1 where there is none."""

    def __init__(self, node: str, text: str, heads: str, processor: TextProcessor) -> None:
        from assembler.bundle.processor import open_tokenizer

        self.node, self.text, self.heads = node, text, heads
        self.tokenizer = open_tokenizer(processor.tokenizer, processor.length)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        found = [self.tokens(row[self.text], row[self.heads]) for row in rows]
        longest = max(1, *(len(words) for words, _ in found))
        words, heads = (
            torch.tensor([sentence[which] + [-1] * (longest - len(sentence[which])) for sentence in found])
            for which in range(2)
        )
        return {"words": words, "heads": heads}

    def tokens(self, text: str, told: str) -> tuple[list[int], list[int]]:
        """The token of each word and of its head; one that is cut off has none."""
        starts = [match.start() for match in re.finditer(r"\S+", text)]
        heads = told.split()
        good = len(heads) == len(starts) and all(x.isdecimal() and int(x) <= len(starts) for x in heads)
        if not good:
            raise AssemblerError(
                f"{self.node}: the column {self.heads} holds {told!r:.60} for a text of {len(starts)} words; it has a "
                f"number from 0 to {len(starts)} for each"
            )
        spans = self.tokenizer.encode(text).offsets
        words = [next((i for i, (low, high) in enumerate(spans) if low <= start < high), -1) for start in starts]
        return words, [words[int(x) - 1] if int(x) else 0 for x in heads]
