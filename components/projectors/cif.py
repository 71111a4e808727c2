"""As many tokens as there is speech: frames summed up until a learned weight is full."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import token_count
from components.projectors._speech import SpeechAdapter, counter

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class Cif(SpeechAdapter):
    """Continuous integrate-and-fire after the second layer of the transformer of `speech_adapter_base`.

    a_t = sigmoid(w h_t + b), C_t = a_1 + ... + a_t; token_i = sum_t relu(min(C_t, i + 1) - max(C_t - a_t, i)) h_t for
    i < floor(C_T): tokens [B, T, in] -> tokens [B, T, out], of which floor(C_T) are real.
    In learning N, the tokens of the column `transcript` as the LM behind this node cuts it (bytes of UTF-8 where there
    is none), gives the loss `auxiliary` * |C_T - N|, and a is scaled to sum up to N. Source: arXiv 1905.11235, as an
    adapter in "How to connect speech foundation models and LLMs?".
    Parameters: those of speech_adapter_base, plus d + 1.
    """

    type = "projector.cif"
    extras = ("count",)
    targets = ("count",)

    max_tokens: int | None = Field(None, ge=1, le=1_000_000, description="most tokens a sample; by default its frames")
    auxiliary: float = Field(1.0, ge=0, le=1e6, description="weight of the quantity loss; 0 needs no transcript")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [cls.small(8 + 1), cls.small(8 + 1, max_tokens=9, auxiliary=0)]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"transcript": "text"} if self.auxiliary else {}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        tokens = token_count(inputs["in"])
        tokens = min(tokens, self.max_tokens or tokens) if isinstance(tokens, int) else self.max_tokens
        return value("tokens", ragged=True, tokens=tokens, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._speech_layers import Cif as Layer

        return self.tower(inputs, output, Layer(self.hidden, output.size("tokens"), self.auxiliary))

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"count": torch.full((batch,), 4)} if self.auxiliary else {}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        import torch

        if not self.auxiliary:
            return lambda rows: {}
        column, count = graph.column("transcript"), counter(node, graph)
        return lambda rows: {"count": torch.tensor([count(row[column]) for row in rows])}
