"""Prompt tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import WIDTH, on_llama

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class Prompt(AdapterPart):
    """f([P; x]): `length` learned embeddings P [length, d] before those of the prompt (arXiv 2104.08691).

    For causal LMs. P is drawn from N(0, 1), as in PEFT; the words' positions move by `length`, and the mask shows P to
    every word. What the host gives for P itself is cut off again.
    Parameters: length * d.
    """

    type = "adapter.prompt"
    trait = "whole"
    identity: ClassVar[bool] = False
    peft_type = "PROMPT_TUNING"
    families = ("llama", "gpt2")
    exports = "the learned words stand before the first word of each prompt, where its decoder graph has no place"

    length: int = Field(20, ge=1, le=10_000, description="number of learned embeddings")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [on_llama(cls.type, 3 * WIDTH, length=3)]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"length": 3}

    def inject(self, on: Host) -> None:
        from components.adapters._prompt import Prepended

        on.around(Prepended(on.root, self.length), "")

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        module: Any = next(iter(inserts.values())).module
        width = module.table.shape[1]
        config = {"peft_type": self.peft_type, "task_type": "CAUSAL_LM", "num_virtual_tokens": self.length}
        return {**config, "token_dim": width, "num_transformer_submodules": 1, "inference_mode": True}

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"prompt_embeddings": tensors[f"{next(iter(inserts))}.table"]}

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = {"prompt_embeddings": f"{next(iter(inserts))}.table"}
        return {names.get(key, key): tensor for key, tensor in tensors.items()}

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        return {"length": config.get("num_virtual_tokens")}
