"""Masks: what each pixel of a picture shows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import ObjectivePart, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class Mask(ObjectivePart):
    """Logits [B, K, H, W] of K classes a pixel: a latent's as they are, or of tokens on a grid, resize(W x_t + b).

    The loss is dice * mean (1 - (2 sum p y + 1) / (sum p + sum y + 1)) + entropy * the mean cross-entropy, with sums
    over the pixels y of a sample's class and their probabilities p. The image column `mask` holds class numbers, or for
    K = 1 what is marked, bright. Masks and logits are compared at `size`. Source: arXiv 1606.04797 (Dice).
    Parameters: with tokens in * K + K.
    """

    type = "head.mask"
    accepts = {"in": ("latent", "tokens")}
    extras = ("masks",)
    targets = ("masks",)

    classes: int = Field(1, ge=1, le=1000, description="K")
    size: tuple[int, int] = Field((224, 224), description="H and W of the masks")
    dice: float = Field(1.5, ge=0, le=1000, description="weight of the Dice loss")
    entropy: float = Field(1.0, ge=0, le=1000, description="weight of the cross-entropy")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        from components.encoders.clipseg import ClipSeg

        tree, _ = ClipSeg.examples()[0]
        marked = {**tree["nodes"], "seg": tree["nodes"]["part"], "part": {"type": cls.type}}
        edges = [*(edge.replace("part", "seg") for edge in tree["edges"]), "seg -> part"]
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_vit"},
            "part": {"type": cls.type, "classes": 3, "size": [32, 32]},
        }
        return [
            ({"nodes": marked, "edges": edges}, 0),
            ({"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}, 64 * 3 + 3),
        ]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"mask": "image"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        if source.kind == "latent":
            if source["channels"] not in (None, self.classes):
                raise WireError("in", f"the latent has {source['channels']} channels, and `classes` is {self.classes}")
            return value("latent", channels=self.classes, height=source["height"], width=source["width"])
        if source.fact("grid") is None:
            raise WireError("in", "these tokens are on no grid; take an image encoder's, without `prefix`")
        return value("latent", channels=self.classes, height=self.size[0], width=self.size[1])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._heads import MaskHead

        source = inputs["in"]
        grid = None if source.kind == "latent" else source.fact("grid")
        width = 0 if grid is None else source.size("width")
        return MaskHead(width, self.classes, grid, self.size, self.dice, self.entropy)

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"masks": torch.zeros(batch, *self.size, dtype=torch.long)}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        column = graph.column("mask")

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            import numpy as np
            import torch

            masks = [np.asarray(row[column].convert("L").resize(self.size[::-1], 0)) for row in rows]
            found = torch.from_numpy(np.stack(masks)).long()  # [B, H, W]
            if self.classes == 1:
                return {"masks": (found > 127).long()}
            if found.max() >= self.classes:
                raise AssemblerError(
                    f"{node}: the column {column} holds {int(found.max())}; classes are 0 to {self.classes - 1}"
                )
            return {"masks": found}

        return collate
