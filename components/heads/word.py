"""The word that a masked language model would say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.errors import AssemblerError
from assembler.part import ObjectivePart
from assembler.registry import register
from assembler.values import Dim, Value, value
from components._words import text_processor

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class Word(ObjectivePart):
    """The likeliest word of logits [B, vocabulary], as `output: word` of a masked language model gives them.

    The loss is the cross-entropy of the data column `answer`, which is one token of that model. It answers a cloze,
    such as "[MASK] is the capital of France.", in the model's own words (arXiv 1909.01066, 2110.07280).
    Parameters: none.
    """

    type = "head.word"
    accepts = {"in": ("logits",)}
    extras = ("word",)
    targets = ("word",)
    answers = "text"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        from components.encoders.hf_text import HfText

        tree = next(tree for tree, _ in HfText.examples() if tree["nodes"]["part"].get("output") == "word")
        part = {key: knob for key, knob in tree["nodes"]["part"].items() if key not in ("pretrain", "domain")}
        nodes = {"cloze": {"type": "input.text"}, "lm": part, "part": {"type": cls.type}}
        return [({"nodes": nodes, "edges": ["cloze -> lm", "lm -> part"]}, 0)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"answer": "text"}

    def expected(self) -> tuple[str, ...]:
        return ("answer",)

    def answer(self, output: dict[str, Any]) -> list[Any]:
        return output["logits"].argmax(-1, keepdim=True).tolist()

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("logits", classes=inputs["in"].size("classes"))

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._heads import WordHead

        return WordHead()

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        _, processor = text_processor(node, graph, "so that its logits are no words")
        return Words(node, graph.column("answer"), processor.tokenizer)


class Words:
    """Data rows -> word [B], the token of each row's answer; and tokens as text again."""

    def __init__(self, node: str, column: str, tokenizer: str) -> None:
        from assembler.bundle.processor import open_tokenizer

        self.node, self.column, self.tokenizer = node, column, open_tokenizer(tokenizer, 64)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        return {"word": torch.tensor([self.token(row[self.column]) for row in rows])}

    def token(self, answer: str) -> int:
        """The token that the answer is, within a sentence."""
        ids = self.tokenizer.encode(f" {answer}", add_special_tokens=False).ids
        if len(ids) != 1:
            raise AssemblerError(f"{self.node}: {answer!r:.60} is {len(ids)} tokens of the model; an answer is one")
        return ids[0]

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids)).strip()
