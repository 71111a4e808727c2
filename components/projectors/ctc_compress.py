"""As many tokens as there is speech: frames that say the same become one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.values import Dim, Value, value
from components._alphabet import Alphabet
from components.projectors._base import token_count
from components.projectors._speech import SpeechAdapter

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph


@register
class CtcCompress(SpeechAdapter):
    """Successive frames of equal argmax_v (W_ctc h_t + b)_v are averaged, after the second layer of the transformer of
    `speech_adapter_base`: tokens [B, T, in] -> tokens [B, T, out], of which as many are real as there are such runs.

    In learning the CTC loss of the column `transcript`, times `auxiliary`, is added. Its labels are the characters of
    `alphabet` or, by default, the bytes of UTF-8, and a blank: V in all. Source: arXiv 2102.01578, as an adapter in
    "How to connect speech foundation models and LLMs?". Parameters: those of speech_adapter_base, plus d * V + V.
    """

    type = "projector.ctc_compress"
    extras = ("transcript",)
    targets = ("transcript",)

    alphabet: str | None = Field(None, min_length=1, max_length=10_000, description="characters; by default all bytes")
    auxiliary: float = Field(1.0, gt=0, le=1e6, description="weight of the CTC loss")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [cls.small(8 * 257 + 257), cls.small(8 * 4 + 4, alphabet="abc")]

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {"transcript": "text"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("tokens", ragged=True, tokens=token_count(inputs["in"]), width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._speech_layers import CtcCompress as Layer

        return self.tower(inputs, output, Layer(self.hidden, Alphabet(self.alphabet).size, self.auxiliary))

    def fake_extras(self, graph: Graph, batch: int) -> dict[str, Any]:
        import torch

        return {"transcript": torch.ones(batch, 4, dtype=torch.long)}

    def collator(self, node: str, graph: Graph) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        column, alphabet = graph.column("transcript"), Alphabet(self.alphabet)
        return lambda rows: {"transcript": alphabet.batch(node, list(rows), column)}
