"""Several yes-or-no labels out of tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from assembler.errors import AssemblerError
from assembler.part import ObjectivePart
from assembler.registry import register
from assembler.values import Dim, Value, value

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class MultiLabel(ObjectivePart):
    """logits = W mean_t(x) + b over the real tokens: tokens [B, T, in] or an embedding [B, in] -> [B, labels].

    `labels` names the data columns of kind label, each 1 where its label fits a sample and 0 where not; any number of
    them may. The loss is the mean of their binary cross-entropies, and the answer is 1 where the logit is above 0. With
    `dropout` the mean is dropped out first.
    Parameters: in * labels + labels.
    """

    type = "head.multi_label"
    accepts = {"in": ("tokens", "embedding", "features")}
    extras = ("labels",)
    targets = ("labels",)
    masks = "own"
    answers = "label"

    labels: tuple[str, ...] = Field(min_length=2, max_length=10_000, description="columns it tells")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate on the pooled input, in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet", "output": "pooled"},
            "part": {"type": cls.type, "labels": ["wing", "leg", "horn"]},
        }
        return [({"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}, 256 * 3 + 3)]

    @field_validator("labels")
    @classmethod
    def _once(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("a label is named twice")
        return labels

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(self.labels, "label")

    def expected(self) -> tuple[str, ...]:
        return self.labels

    def answer(self, output: dict[str, Any]) -> list[Any]:
        return (output["logits"] > 0).int().tolist()

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("logits", classes=len(self.labels))

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._heads import MultiLabelHead

        return MultiLabelHead(inputs["in"].size("width"), len(self.labels), self.dropout)

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"labels": torch.zeros(batch, len(self.labels))}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        columns = [graph.column(name) for name in self.labels]

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            import torch

            for row in rows:
                odd = next((column for column in columns if row[column] not in (0, 1)), None)
                if odd is not None:
                    raise AssemblerError(f"{node}: the column {odd} holds {row[odd]!r}; a label is 0 or 1")
            return {"labels": torch.tensor([[float(row[column]) for column in columns] for row in rows])}

        return collate
