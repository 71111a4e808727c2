"""What the five speech adapters share: knobs, ports and parameters of the transformer around the length adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from assembler.part import Masks
from components.projectors._base import TokenProjector

if TYPE_CHECKING:
    from torch import nn

    from assembler.graph import Graph
    from assembler.values import Value


class SpeechAdapter(TokenProjector):
    """x W_in -> bidirectional transformer layers, with what shortens the sequence after the second -> W_out."""

    masks: ClassVar[Masks] = "own"

    hidden: int = Field(512, ge=1, le=65_536, description="d, width of the transformer")
    layers: int = Field(4, ge=1, le=128, description="L, layers of the transformer")
    heads: int = Field(8, ge=1, le=1024, description="attention heads, which divide d")
    feed_forward: int = Field(2048, ge=1, le=1_000_000, description="f, hidden width of the feed-forward")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"`heads` {self.heads} does not divide `hidden` {self.hidden}; change one")
        return self

    @classmethod
    def small(cls, extra: int, **knobs: Any) -> tuple[dict[str, Any], int | None]:
        """An example, and the parameters of the adapter with `extra` ones in its length adapter."""
        inner, outer, d, f, layers = 16, 20, 8, 12, 3
        layer = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d
        count = inner * d + d + layers * layer + d * outer + outer
        own = {"width": outer, "hidden": d, "layers": layers, "heads": 2, "feed_forward": f}
        return cls.after_ears(**own, **knobs), count + extra

    def tower(self, inputs: dict[str, Value], output: Value, length: nn.Module | None = None) -> nn.Module:
        """The module with a length adapter after its second layer, or its last if it has one."""
        from components.projectors._speech_layers import SpeechTower

        sizes = (inputs["in"].size("width"), output.size("width"), self.hidden, self.layers)
        return SpeechTower(*sizes, self.heads, self.feed_forward, length)


def counter(node: str, graph: Graph) -> Callable[[str], int]:
    """Tokens in a text as the LM behind `node` cuts it; bytes of UTF-8 where there is none."""
    waiting = [edge.target for edge in graph.outgoing[node]]
    while waiting:
        name = waiting.pop(0)
        part: Any = graph.receiver(name)
        if hasattr(part, "load_tokenizer"):
            tokenizer = part.load_tokenizer(graph.base).backend_tokenizer
            return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
        waiting += [edge.target for edge in graph.outgoing[name]]
    return lambda text: len(text.encode())
