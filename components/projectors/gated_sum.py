"""Several inputs added up, the later ones through gates that open in training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import Joining, token_count

if TYPE_CHECKING:
    from torch import nn


@register
class GatedSum(Joining):
    """y = x_1 + sum_i tanh(g_i) * x_i for the later inputs i = 2 ... n: [B, T, D] each -> tokens [B, T, D].

    g_i [D] starts at zero, so that an untrained sum is x_1 bit for bit (the gate of Flamingo, arXiv 2204.14198). A
    later input has the tokens of the first, or one that is added to all of them; its padding adds nothing.
    Parameters: (n - 1) * D.
    """

    type = "projector.gated_sum"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        voice, picture = cls.after_both(), cls.after_both(inputs=["first", "second", "third"])
        voice["edges"] += ["ears -> part.first", "one -> part.second"]
        picture["edges"] += ["tokens -> part.first", "tokens -> part.second", "one -> part.third"]
        return [(voice, 16), (picture, 2 * 16)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        first = inputs[self.inputs[0]]
        for port, source in inputs.items():
            tokens = (token_count(source), token_count(first))
            if None not in tokens and tokens[0] not in (1, tokens[1]):
                raise WireError(port, f"`{port}` has {tokens[0]} tokens to be added to {tokens[1]}; pool it to as many")
        width = self.one_width(inputs)
        return value("tokens", ragged=first.ragged, facts=dict(first.facts), tokens=token_count(first), width=width)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._joining import GatedSumLayer

        return GatedSumLayer(output.size("width"), len(self.inputs))
