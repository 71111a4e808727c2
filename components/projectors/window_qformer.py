"""Queries that read a short window of speech each, so that tokens come at a fixed rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import shorter, strided, token_count
from components.projectors._querying import Querying

if TYPE_CHECKING:
    from torch import nn


@register
class WindowQFormer(Querying):
    """The frames are cut into windows of w; in each, n learned queries go through L layers of BERT, all of which attend
    to the window's frames; then one linear: tokens [B, T, in] -> tokens [B, n * ceil(T / w), out].

    w is `window`, or `seconds` of the frames' rate, rounded down; padding is not attended to, and a window with one
    real frame is real. Fresh weights: normal of 0.02. The WLQ-former of "How to connect speech foundation models and
    LLMs?"; windows as in SALMONN (arXiv 2310.13289).
    Parameters: n * d + 2 * d
    + L * (6 * (d^2 + d) + 2 * (in * d + d) + 2 * d * f + f + d + 6 * d) + d * out + out.
    """

    type = "projector.window_qformer"

    queries: int = Field(1, ge=1, le=1000, description="n, tokens out of each window")
    window: int | None = Field(None, ge=1, le=100_000, description="w in frames; by default as long as `seconds`")
    seconds: float = Field(0.33, gt=0, le=3600, description="length of a window, where frames have a rate")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {"width": 20, "hidden": 8, "layers": 2, "heads": 2, "feed_forward": 12}
        return [
            (cls.after_ears(**small), cls.parameters(16, 20, 8, 12, 2, 1, crossing=2)),
            (cls.after_an_encoder(96, **small, window=4, queries=2), cls.parameters(256, 20, 8, 12, 2, 2, crossing=2)),
        ]

    def _size(self, source: Value) -> int:
        rate = source.fact("rate")
        if self.window is None and rate is None:
            raise WireError("in", "these tokens have no known rate, so a window is not `seconds` long; give `window`")
        return self.window or max(1, int(self.seconds * rate))

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        source = inputs["in"]
        size = self._size(source)
        count = strided(token_count(source), size)
        tokens = count * self.queries if isinstance(count, int) else None
        facts = shorter(source, size / self.queries)
        return value("tokens", ragged=source.ragged, facts=facts, tokens=tokens, width=self.width or want)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._qformer import WindowQFormerLayer

        return WindowQFormerLayer(self.reader(inputs, output, self.queries, every=1), self._size(inputs["in"]))
