"""P-Adapter that makes virtual tokens of a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import BERT_WIDTH, on_bert

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class PrefixGenerator(AdapterPart):
    """LM([P; E]) with `length` tokens P = W_2 relu(W_1 max_t(LSTM(E)_t)) that are made of the prompt's embeddings E.

    The LSTM has two layers and reads both ways, d / 2 wide each; padding is not read (arXiv 2110.07280). The host
    answers for E alone. Nine tokens are as many as the paper's P-tuning form has, which puts them around the subject.
    The host is an encoder of masked words, which must have positions for P too.
    Parameters: 2 * 2 * (4 * (d / 2) * d + 4 * (d / 2) * (d / 2) + 8 * (d / 2)) + d * d + d
    + length * d * d + length * d.
    """

    type = "adapter.prefix_generator"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("bert",)

    length: int = Field(3, ge=1, le=10_000, description="number of virtual tokens")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        half, d = BERT_WIDTH // 2, BERT_WIDTH
        lstm = 4 * (4 * half * d + 4 * half * half + 8 * half)
        return [on_bert(cls.type, lstm + d * d + d + 2 * (d * d + d), length=2)]

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._p_adapters import Prefix

        on.around(Prefix(on.width("embed.out"), self.length, Borrowed(on.module("embed"))), "")
