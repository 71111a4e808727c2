"""Each projected token drawn to the word that it shows, in the LLM's own space."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import ObjectivePart, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components._words import language_model, padded
from components.projectors._base import token_count

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class TokenAlignment(ObjectivePart):
    """L = mean_i -log(exp(cos(p_i, e_i) / tau) / sum_w exp(cos(p_i, e_w) / tau)) over tokens i that show a word.

    `in` are projected tokens p [B, T, D] on their way into the LLM, `patches` the encoder's tokens behind them [B, T,
    C], and `words` embeddings [B, C], in the same space, of the text column `word` of each sample: CLIP's two towers,
    say. The words of a batch are its list. A patch shows one of its `keep` likeliest words whose cosine is over
    `threshold`, drawn with probability softmax(cosine / `sharpness`) (in evaluation the likeliest). e is the mean of
    the LLM's own embeddings of the word's tokens; the sum runs over the different words that some patch shows. Neither
    patches, words nor LLM learn from it, and a model that serves has no trace of it. Source: SEA.
    Parameters: 0.
    """

    type = "objective.token_alignment"
    accepts = {"in": ("tokens",), "patches": ("tokens", "features"), "words": ("embedding",)}
    extras = ("ids",)
    targets = ("ids",)
    masks = "own"

    temperature: float = Field(0.07, gt=0, le=100, description="tau")
    threshold: float = Field(0.0, ge=-1, le=1, description="cosine over which a patch shows a word")
    keep: int = Field(3, ge=1, le=1000, description="likeliest words of a patch to draw from")
    sharpness: float = Field(0.1, gt=0, le=100, description="temperature of the draw")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        config = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
        talk = {"type": "backbone.causal_lm", "arch": "llama", "config": {**config, "num_attention_heads": 4}}
        nodes = {
            "photo": {"type": "input.image", "size": [64, 64]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "whole": {"type": "encoder.timm", "model": "test_efficientnet", "output": "pooled"},
            "bridge": {"type": "projector.linear"},
            "talk": {**talk, "prompt": "{photo} {answer}"},
            "part": {"type": cls.type},
        }
        edges = ["photo -> eyes", "photo -> whole", "eyes -> bridge", "bridge -> talk.photo"]
        edges += ["bridge -> part", "eyes -> part.patches", "whole -> part.words"]
        return [({"nodes": nodes, "edges": edges}, 0)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"word": "text"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        tokens, patches, words = inputs["in"], inputs["patches"], inputs["words"]
        counts = (tokens["tokens"], token_count(patches))
        if None not in counts and counts[0] != counts[1]:
            raise WireError(
                "patches", f"{counts[1]} patches stand behind {counts[0]} tokens; the projector must keep all"
            )
        if None not in (patches["width"], words["width"]) and patches["width"] != words["width"]:
            widths = f"patches are {patches['width']} wide and words {words['width']}"
            raise WireError("words", f"{widths}; take both from encoders of one space, such as CLIP's")
        return value("tokens", ragged=tokens.ragged, tokens=tokens["tokens"], width=tokens["width"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.objectives._objectives import TokenAlignmentLoss

        return TokenAlignmentLoss(self.temperature, self.threshold, self.keep, self.sharpness)

    def bind(self, node: str, graph: Graph, modules: Mapping[str, nn.Module]) -> None:
        modules[node].words_of(modules[language_model(node, graph)])  # type: ignore[operator]

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"ids": torch.arange(batch).unsqueeze(1)}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        column, lm = graph.column("word"), graph.parts[language_model(node, graph)]
        tokenizer = lm.load_tokenizer(graph.base).backend_tokenizer  # type: ignore[attr-defined]

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            found = [tokenizer.encode(row[column], add_special_tokens=False).ids for row in rows]
            if not all(found):
                raise AssemblerError(f"{node}: the column {column} holds an empty word; give every row one")
            return {"ids": padded(found)}

        return collate
