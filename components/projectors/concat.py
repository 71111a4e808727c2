"""Several inputs, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import Joining, token_count

if TYPE_CHECKING:
    from torch import nn


@register
class Concat(Joining):
    """y = [x_1; x_2; ...] along the tokens: n inputs [B, T_i, D] -> tokens [B, T_1 + T_2 + ..., D].

    `inputs` names the ports, in order; an embedding is one token. Padding stays where it is. Parameters: 0.
    """

    type = "projector.concat"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        three = cls.after_both(inputs=["voice", "picture", "whole"])
        three["edges"] += ["ears -> part.voice", "tokens -> part.picture", "one -> part.whole"]
        two = cls.after_both()
        two["edges"] += ["tokens -> part.first", "one -> part.second"]
        return [(three, 0), (two, 0)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        counts = [token_count(source) for source in inputs.values()]
        total = sum(x for x in counts if isinstance(x, int)) if all(isinstance(x, int) for x in counts) else None
        ragged = any(source.ragged for source in inputs.values())
        return value("tokens", ragged=ragged, tokens=total, width=self.one_width(inputs))

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._joining import Concatenated

        return Concatenated()
