"""Classes out of tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import ObjectivePart
from assembler.registry import register
from assembler.values import Dim, Value, value

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


class LabelPart(ObjectivePart):
    """A head that tells which of `classes` a sample is of, judged by the data column `label`."""

    accepts = {"in": ("tokens", "embedding", "features")}
    extras = ("labels",)
    targets = ("labels",)
    masks = "own"
    answers = "label"

    classes: int = Field(ge=2, le=1_000_000, description="number of classes")

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"label": "label"}

    def expected(self) -> tuple[str, ...]:
        return ("label",)

    def answer(self, output: dict[str, Any]) -> list[Any]:
        return output["logits"].argmax(-1).tolist()

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("logits", classes=self.classes)

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        column = graph.column("label")

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            import torch

            labels = [row[column] for row in rows]
            odd = next((x for x in labels if not isinstance(x, int) or not 0 <= x < self.classes), None)
            if odd is not None:
                raise AssemblerError(f"{node}: the column {column} holds {odd!r}; labels are 0 to {self.classes - 1}")
            return {"labels": torch.tensor(labels)}

        return collate


def seen_by(cls: type[LabelPart], **part: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two specs for examples, where the head reads a picture's tokens, and its one embedding, 256 wide."""

    def spec(**encoder: Any) -> dict[str, Any]:
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet", **encoder},
            "part": {"type": cls.type, "classes": 7, **part},
        }
        return {"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}

    return spec(), spec(output="pooled")


@register
class Classifier(LabelPart):
    """logits = W norm(mean_t(x)) + b over the real tokens: tokens [B, T, in] or an embedding [B, in] -> [B, classes].

    The loss is the cross-entropy to the data column `label`, a whole number from 0. `norm: batch` is a batch norm
    without weights, as AdaptFormer's head has (arXiv 2205.13535). With `dropout` the mean is dropped out first.
    Parameters: in * classes + classes.
    """

    type = "head.classifier"

    dropout: float = Field(0.0, ge=0, lt=1, description="rate on the pooled input, in training")
    norm: Literal["none", "batch"] = Field("none", description="of the mean, before the linear")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [(seen_by(cls)[0], 256 * 7 + 7), (seen_by(cls, norm="batch")[1], 256 * 7 + 7)]

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._heads import ClassifierHead

        return ClassifierHead(inputs["in"].size("width"), self.classes, self.dropout, self.norm == "batch")
