"""P-Adapters' mixture of experts: a prompt for each relation, and what picks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import NumberedPart
from assembler.registry import register
from components.adapters._examples import BERT_WIDTH, on_bert

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class PromptSelector(NumberedPart):
    """LM([P_r; E]) with the learned prompt P_r [length, d] of the relation r that the prompt E asks for, one of N.

    r is the largest of z = W mean_t(E_t) + b, over the embeddings of the real tokens: the mixture of experts that
    arXiv 2110.07280 compares with. In training r is the row's number in the column `rows: {relation: COLUMN}`, so that
    each prompt learns from its own relation, and `loss` weighs the cross-entropy of z to it. A row with -1 takes z's
    choice, and z learns by the gradient of the mixture softmax(z). The host is an encoder of masked words, which must
    have positions for P too.
    Parameters: N * length * d + d * N + N.
    """

    type = "adapter.prompt_selector"
    trait = "whole"
    identity: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("relation",)
    families: ClassVar[tuple[str, ...] | None] = ("bert",)

    relations: int = Field(41, ge=1, le=100_000, description="N")
    length: int = Field(5, ge=1, le=10_000, description="tokens of a prompt")
    loss: float = Field(1.0, ge=0, le=1e4, description="weight of the classifier's cross-entropy")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [on_bert(cls.type, 3 * 2 * BERT_WIDTH + BERT_WIDTH * 3 + 3, relations=3, length=2)]

    def inject(self, on: Host) -> None:
        import torch

        from assembler.adapters.host import Borrowed
        from components.adapters._p_adapters import Chosen

        embed, relation = Borrowed(on.module("embed")), on.wire("relation", torch.tensor([-1]))
        sizes = (on.width("embed.out"), self.length, self.relations, self.loss)
        on.around(Chosen(*sizes, embed, relation), "")
