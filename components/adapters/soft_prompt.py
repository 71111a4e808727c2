"""Prompt tuning and P-tuning."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import WIDTH, on_llama

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class SoftPrompt(AdapterPart):
    """LM([P; E]) with `length` learned tokens P before the prompt's embeddings E (prompt tuning, arXiv 2104.08691).

    With `encoder` P is computed from a table of its size (P-tuning, arXiv 2103.10385): `lstm` is a bidirectional LSTM,
    two linears and a ReLU between them, `mlp` three linears.
    Parameters: length * d; `lstm`: and those of the LSTM, h wide each way + 2h * (2h + 1) + d * (2h + 1);
    `mlp`: and d * h + h + h * h + h + h * d + d.
    """

    type = "adapter.soft_prompt"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2")
    peft_type = "PROMPT_TUNING"
    exports = "its tokens are put in inside the LM, and the graphs of a bundle take all tokens from outside"

    length: int = Field(20, ge=1, le=10_000, description="number of learned tokens")
    encoder: Literal["none", "lstm", "mlp"] = Field("none", description="what computes them from a table")
    hidden: int = Field(256, ge=1, le=65_536, description="h, the encoder's width")
    depth: int = Field(2, ge=1, le=64, description="layers of the LSTM")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        lstm = 2 * (4 * 6 * WIDTH + 4 * 6 * 6 + 8 * 6)
        return [
            on_llama(cls.type, 5 * WIDTH, length=5),
            on_llama(cls.type, 3 * WIDTH + 2 * WIDTH * 6 + 6 * 6 + 2 * 6 + WIDTH, length=3, encoder="mlp", hidden=6),
            on_llama(cls.type, 3 * WIDTH + lstm + 12 * 13 + WIDTH * 13, length=3, encoder="lstm", hidden=6, depth=1),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"length": 3, "encoder": "mlp", "hidden": 4}

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._soft_prompt import SoftPrompt, reparametrised

        width = on.width("embed.out")
        encoder = reparametrised(self.encoder, width, self.hidden, self.depth)
        keeps = "logits_to_keep" in inspect.signature(type(on.module("")).forward).parameters
        on.around(SoftPrompt(Borrowed(on.module("embed")), self.length, width, encoder, keeps), "")

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        module: Any = next(iter(inserts.values())).module
        config = {"peft_type": self.peft_type, "task_type": "CAUSAL_LM", "num_virtual_tokens": self.length}
        config |= {"token_dim": module.table.shape[1], "num_transformer_submodules": 1, "inference_mode": True}
        return config if self.encoder == "none" else None

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"prompt_embeddings": tensors[f"{next(iter(inserts))}.table"]}

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {"prompt_embeddings": f"{next(iter(inserts))}.table"}
        return {names.get(key, key): tensor for key, tensor in tensors.items()}

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        return {"length": config.get("num_virtual_tokens")}
