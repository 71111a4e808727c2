"""What was said of the learned samples that are nearest to this one, as words of the LLM."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import TALK

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class Nearest(Part):
    """Tokens [B, T, d] or an embedding [B, d] -> the words said of the `top` nearest learned samples: [B, top * S, D].

    While a stage trains this node, each new sample's mean token f, of length 1, and the data column `says` go into a
    store of `size` places; past that the oldest give way. A sample is answered with the stored ones whose f_n has the
    largest cosine to its own, nearest first: the LLM's embeddings of the last `spell` tokens of "<text>,", and on each
    of them A_n t with A_n = exp(-beta (1 - f'f_n)), where t [D] starts at zero and learns. Those with a cosine under
    `least` are left out, so that a sample unlike all others has no word. What is said of a sample is kept from it while
    it is learned; the cosine tells that it is the same, so that nothing before this node may learn in the same stage.
    No gradient flows back. Source: the key-value cache of Tip-Adapter (arXiv 2111.03930), of which an LLM here reads
    the values. Parameters: D.
    """

    type = "projector.nearest"
    accepts = {"in": ("tokens", "embedding", "features")}
    extras = ("said",)
    targets = ("said",)
    masks = "own"
    stores = True

    top: int = Field(3, ge=1, le=1000, description="nearest samples that are told of")
    size: int = Field(1024, ge=1, le=1_000_000, description="places in the store")
    says: str = Field("answer", description="data column with what is said of a sample")
    spell: int = Field(8, ge=1, le=1000, description="S, most tokens of what is said; of longer texts the last")
    least: float = Field(-1.0, ge=-1, le=1, description="cosine under which a stored sample is not told of")
    beta: float = Field(5.5, gt=0, le=1000, description="how fast a likeness fades")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def spec(source: dict[str, Any], **encoder: Any) -> dict[str, Any]:
            nodes = {
                "photo": source,
                "eyes": {"type": "encoder.timm", "model": "test_efficientnet", **encoder},
                "part": {"type": cls.type, "size": 6, "top": 2, "spell": 5},
                "talk": TALK,
            }
            return {"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part", "part -> talk.photo"]}

        image = {"type": "input.image", "size": [32, 32]}
        film = {"type": "input.video", "size": [32, 32], "frames": 3}
        return [(spec(image, output="pooled"), 32), (spec(image), 32), (spec(film), 32)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {self.says: "text"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        if self.top > self.size:
            raise WireError("in", f"a store of {self.size} has no {self.top} nearest; raise `size` or lower `top`")
        return value("tokens", ragged=True, tokens=self.top * self.spell, width=want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._nearest import Nearest as Module

        inner, width = inputs["in"].size("width"), output.size("width")
        return Module(inner, width, self.size, self.spell, self.top, self.least, self.beta)

    def bind(self, node: str, graph: Graph, modules: Mapping[str, nn.Module]) -> None:
        from components._words import language_model

        modules[node].words_of(modules[language_model(node, graph)])  # type: ignore[operator]

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"said": torch.zeros(batch, self.spell, dtype=torch.long)}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        from components._words import language_model, spelled

        lm = graph.parts[language_model(node, graph)]
        tokenizer = lm.load_tokenizer(graph.base).backend_tokenizer  # type: ignore[attr-defined]
        column = graph.column(self.says)
        return lambda rows: {"said": spelled(tokenizer, [row[column] for row in rows], self.spell)}
