"""P-tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import WIDTH, on_llama

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class PTuning(AdapterPart):
    """f([P; x]) with P = g(E): learned words before the prompt, computed from a table E [length, d] (arXiv 2103.10385).

    g is a bidirectional LSTM with two linears and a ReLU after it, or three linears with ReLUs between, as in PEFT.
    For causal LMs, as `adapter.prompt`, which has P itself for weights.
    Parameters: length * d; `lstm`: and those of the LSTM, h wide each way + 2h * (2h + 1) + d * (2h + 1); `mlp`: and
    d * h + h + h * h + h + h * d + d.
    """

    type = "adapter.p_tuning"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2")
    exports = "the learned words stand before the first word of each prompt, where its decoder graph has no place"

    length: int = Field(20, ge=1, le=10_000, description="number of learned words")
    encoder: Literal["lstm", "mlp"] = Field("mlp", description="g")
    hidden: int = Field(128, ge=1, le=65_536, description="h, the width of g")
    depth: int = Field(2, ge=1, le=64, description="layers of the LSTM")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        table = 3 * WIDTH
        lstm = 2 * (4 * 6 * WIDTH + 4 * 6 * 6 + 8 * 6) + 12 * 13 + WIDTH * 13
        mlp = WIDTH * 6 + 6 + 6 * 6 + 6 + 6 * WIDTH + WIDTH
        return [
            on_llama(cls.type, table + mlp, length=3, hidden=6),
            on_llama(cls.type, table + lstm, length=3, hidden=6, encoder="lstm", depth=1),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"length": 3, "hidden": 4}

    def inject(self, on: Host) -> None:
        from components.adapters._prompt import Encoded, LstmEncoder, mlp_encoder

        def made(width: int) -> Any:
            lstm = self.encoder == "lstm"
            return LstmEncoder(width, self.hidden, self.depth) if lstm else mlp_encoder(width, self.hidden)

        on.around(Encoded(on.root, self.length, made), "")
