"""What the two Q-Formers share: the knobs and parameters of the transformer that their queries go through."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from assembler.part import Masks
from components.projectors._base import TokenProjector

if TYPE_CHECKING:
    from assembler.values import Value
    from components.projectors._qformer import Reader


class Querying(TokenProjector):
    """Learned queries through layers of BERT that attend to the tokens."""

    masks: ClassVar[Masks] = "own"

    hidden: int = Field(768, ge=1, le=65_536, description="d, width of the transformer")
    layers: int = Field(2, ge=1, le=128, description="L, layers of the transformer")
    heads: int = Field(12, ge=1, le=1024, description="attention heads, which divide d")
    feed_forward: int = Field(3072, ge=1, le=1_000_000, description="f, hidden width of the feed-forward")
    dropout: float = Field(0.1, ge=0, lt=1, description="of states and attention, in training")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `hidden` {self.hidden}; change one")
        return self

    def reader(self, inputs: dict[str, Value], output: Value, queries: int, every: int) -> Reader:
        """The queries' transformer, of which one layer in `every` attends to the tokens."""
        from components.projectors._qformer import Reader

        inner, outer = inputs["in"].size("width"), output.size("width")
        knobs = (self.hidden, self.layers, self.heads, self.feed_forward, self.dropout)
        return Reader(inner, outer, queries, every, *knobs)

    @staticmethod
    def parameters(inner: int, outer: int, d: int, f: int, layers: int, queries: int, crossing: int) -> int:
        """The formula of the docstrings, for examples."""
        layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
        cross = 2 * (d * d + d) + 2 * (inner * d + d) + 2 * d
        return queries * d + 2 * d + layers * layer + crossing * cross + d * outer + outer
