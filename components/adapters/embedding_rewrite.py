"""P-Adapter that rewrites the embeddings of a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import NumberedPart
from assembler.registry import register
from components.adapters._examples import BERT_WIDTH, on_bert

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class EmbeddingRewrite(NumberedPart):
    """E' = W LSTM(E) + b in the place of the words' embeddings E [B, T, d], by an LSTM that reads both ways.

    The LSTM has two layers, d / 2 wide each way; padding is not read (arXiv 2110.07280). `keep` names token ids, such
    as that of [MASK], whose embeddings stay as they are, and so do those of the row's subject where columns of the data
    tell its first and last token, `rows: {first: COLUMN, last: COLUMN}`. The host is an encoder of masked words: in a
    causal LM a word would see those after it. The paper trains it by the answer at [MASK].
    Parameters: 2 * 2 * (4 * (d / 2) * d + 4 * (d / 2) * (d / 2) + 8 * (d / 2)) + d * d + d.
    """

    type = "adapter.embedding_rewrite"
    trait = "whole"
    identity: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("first", "last")
    families: ClassVar[tuple[str, ...] | None] = ("bert",)

    keep: list[int] = Field([], max_length=1000, description="ids of tokens that are not rewritten")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        half = BERT_WIDTH // 2
        lstm = 4 * (4 * half * BERT_WIDTH + 4 * half * half + 8 * half)
        return [on_bert(cls.type, lstm + BERT_WIDTH * BERT_WIDTH + BERT_WIDTH, keep=[3])]

    def inject(self, on: Host) -> None:
        import torch

        from assembler.adapters.host import Borrowed
        from components.adapters._masks import keep_mask
        from components.adapters._p_adapters import Rewrite, Subject

        subject = Subject(*(on.wire(name, torch.tensor([-1])) for name in self.numbers))
        module = Rewrite(on.width("embed.out"), self.keep, Borrowed(keep_mask(on)), subject)
        on.branch(module, "embed.out", ["embed.out", "embed.in"], replace=True)
