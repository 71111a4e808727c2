"""P-Adapter that makes virtual tokens of a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from assembler.part import NumberedPart
from assembler.registry import register
from components.adapters._examples import BERT_WIDTH, on_bert

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class PrefixGenerator(NumberedPart):
    """LM([P; E]) with `length` tokens P = W_2 relu(W_1 max_t(LSTM(E)_t)) that are made of the prompt's embeddings E.

    The LSTM has two layers and reads both ways, d / 2 wide each; padding is not read (arXiv 2110.07280). The host
    answers for E alone. The paper's P-tuning form is `length: 9` with `around`, the id of [MASK]: three tokens before
    the row's subject, three after it and three after [MASK]. Columns of the data tell the subject's first and last
    token, `rows: {first: COLUMN, last: COLUMN}`; untold, it is all between the first token and [MASK]. The host is an
    encoder of masked words, which must have positions for P too.
    Parameters: 2 * 2 * (4 * (d / 2) * d + 4 * (d / 2) * (d / 2) + 8 * (d / 2)) + d * d + d
    + length * d * d + length * d.
    """

    type = "adapter.prefix_generator"
    trait = "whole"
    identity: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("first", "last")
    families: ClassVar[tuple[str, ...] | None] = ("bert",)

    length: int = Field(3, ge=1, le=10_000, description="number of virtual tokens")
    around: int | None = Field(None, ge=0, description="the id of [MASK], to put them around it and the subject")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        half, d = BERT_WIDTH // 2, BERT_WIDTH
        lstm = 4 * (4 * half * d + 4 * half * half + 8 * half)
        return [
            on_bert(cls.type, lstm + d * d + d + 2 * (d * d + d), length=2),
            on_bert(cls.type, lstm + d * d + d + 3 * (d * d + d), length=3, around=3),
        ]

    @model_validator(mode="after")
    def _in_three(self) -> PrefixGenerator:
        if self.around is not None and self.length % 3:
            raise ValueError(f"with `around` the tokens are in three parts, and `length` is {self.length}; take 9")
        return self

    def inject(self, on: Host) -> None:
        import torch

        from assembler.adapters.host import Borrowed
        from components.adapters._p_adapters import Prefix, Subject

        subject = Subject(*(on.wire(name, torch.tensor([-1])) for name in self.numbers))
        embed = Borrowed(on.module("embed"))
        on.around(Prefix(on.width("embed.out"), self.length, embed, self.around, subject), "")
