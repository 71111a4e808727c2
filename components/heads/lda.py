"""Classes by linear discriminant analysis, from running sums."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.values import Value
from components.heads.classifier import LabelPart, seen_by

if TYPE_CHECKING:
    from torch import nn


@register
class Lda(LabelPart):
    """logits_c = e^t (w_c x + b_c) with w_c = (S + eps I)^-1 mu_c and b_c = log(n_c / n) - mu_c w_c / 2, x [B, in].

    x is the mean over the real tokens, or an embedding. While a stage trains this head, each batch adds to the number
    n_c, the sum n_c mu_c and the products sum x x' of what it has seen, of which S is the covariance within classes; no
    sample is kept. Classes may so come one session after the other, a stage or a spec each, and the result is that of
    all at once; a class that was never seen is never told. Rows that come again in whole passes change nothing. It is
    the head of First Session Adaptation (arXiv 2303.13199), over a body that stands still. t, which starts at zero
    and learns by cross-entropy, makes chances of the scores and changes no answer.
    Parameters: 1.
    """

    type = "head.lda"

    eps: float = Field(1.0, gt=0, le=1e6, description="added to the diagonal of the covariance")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [(spec, 1) for spec in seen_by(cls)]

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._lda import LdaHead

        return LdaHead(inputs["in"].size("width"), self.classes, self.eps)
