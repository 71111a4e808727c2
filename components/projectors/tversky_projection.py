"""A projection by likeness: how much a token shares with prototypes, and how much each has alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.registry import register
from assembler.values import Value
from components.projectors._base import TokenProjector

if TYPE_CHECKING:
    from torch import nn


@register
class TverskyProjection(TokenProjector):
    """y_c = theta f(x and p_c) - alpha f(x without p_c) - beta f(p_c without x): tokens [B, T, in] -> [B, T, out].

    Learned features F [K, in] and prototypes P [out, in]; with a = F x and b = F p_c, x has feature k if a_k is over 0.
    What x and p_c share is the sum of an `intersection` of a_k and b_k: their product, min, max, mean, gmean sqrt(a b),
    or softmin (a e^-a + b e^-b) / (e^-a + e^-b). f(x without p) sums a_k over what only x has (`ignorematch`);
    `substractmatch` adds relu(a_k - b_k) over what both have.

    `by: feature` does so feature by feature, as the formula is written, and holds a number for each token, prototype
    and feature; `by: sum` sums over the shared features first, as the authors' library does, in matrix products alone.
    The product is one either way. `form: ratio` is both / (both + alpha f(x without p) + beta f(p without x) + 1).
    Fresh: F and P uniform in [0, 1), theta = 1, alpha = beta = 0.5. Source: "Tversky Neural Networks".
    Parameters: K * in + out * in + 3 (ratio: + 2).
    """

    type = "projector.tversky_projection"

    features: int = Field(64, ge=1, le=65_536, description="K, learned features")
    intersection: Literal["product", "min", "max", "mean", "gmean", "softmin"] = Field(
        "product", description="see above"
    )
    difference: Literal["ignorematch", "substractmatch"] = Field("ignorematch", description="see above")
    by: Literal["sum", "feature"] = Field("sum", description="sums first, or feature by feature")
    form: Literal["contrast", "ratio"] = Field("contrast", description="weighted difference, or share")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        count = 5 * 256 + 12 * 256
        each: dict[str, Any] = {"intersection": "softmin", "difference": "substractmatch", "by": "feature"}
        return [
            (cls.after_an_encoder(width=12, features=5), count + 3),
            (cls.after_an_encoder(width=12, features=5, **each), count + 3),
            (cls.after_an_encoder(width=12, features=5, intersection="gmean", form="ratio"), count + 2),
        ]

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.projectors._tversky import TverskyLayer

        sizes = (inputs["in"].size("width"), output.size("width"), self.features)
        return TverskyLayer(*sizes, self.intersection, self.difference, self.by, self.form)
