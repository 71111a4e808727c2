"""Scores out of tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import ObjectivePart
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import EARS

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class Regressor(ObjectivePart):
    """y = W mean_t(x) + b over the real tokens: tokens [B, T, in] or an embedding [B, in] -> [B, scores].

    `scores` names the data columns of kind score that y is to be, by default one, `score`. The loss is the mean of
    their squared errors, or Huber's with a bend at 1. With `dropout` the mean is dropped out first.
    Parameters: in * scores + scores.
    """

    type = "head.regressor"
    accepts = {"in": ("tokens", "embedding", "features")}
    extras = ("scores",)
    targets = ("scores",)
    masks = "own"
    answers = "score"

    scores: tuple[str, ...] = Field(("score",), min_length=1, max_length=1000, description="columns it tells")
    loss: Literal["mse", "huber"] = Field("mse", description="squared error, or linear beyond 1")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate on the pooled input, in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        heard = {**EARS, "part": {"type": cls.type, "scores": ["accuracy", "fluency"], "loss": "huber"}}
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet", "output": "pooled"},
            "part": {"type": cls.type},
        }
        return [
            ({"nodes": heard, "edges": ["sound -> ears", "ears -> part"]}, 16 * 2 + 2),
            ({"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}, 256 + 1),
        ]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(self.scores, "score")

    def expected(self) -> tuple[str, ...]:
        return self.scores

    def answer(self, output: dict[str, Any]) -> list[Any]:
        rows = output["logits"].float().tolist()
        return [row[0] for row in rows] if len(self.scores) == 1 else rows

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("logits", classes=len(self.scores))

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._heads import RegressorHead

        return RegressorHead(inputs["in"].size("width"), len(self.scores), self.dropout, self.loss)

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"scores": torch.zeros(batch, len(self.scores))}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        columns = [graph.column(name) for name in self.scores]

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            import torch

            return {"scores": torch.tensor([[_number(node, name, row[name]) for name in columns] for row in rows])}

        return collate


def _number(node: str, column: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise AssemblerError(f"{node}: the column {column} holds {given!r}; a score is a number")
    return float(given)
