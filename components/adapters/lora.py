"""LoRA as a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class Lora(AdapterPart):
    """h = W x + (alpha / r) B A x on every linear that `sites` names, with A [r, in] and B [out, r] (arXiv 2106.09685).

    B starts at zero, so that an untrained adapter leaves the host's output bit-exact. `rslora`
    scales by alpha / sqrt(r) (arXiv 2312.03732); `dora` learns the norm of each output apart (arXiv 2402.09353).
    Parameters: sum over the sites of rank * (in + out); with `dora` also out of each.
    """

    type = "adapter.lora"
    mergeable = True
    peft_type = "LORA"

    sites: str = Field("layers.*.attn.{q,v}", description="pattern over the host's canonical sites")
    rank: int = Field(8, ge=1, le=4096, description="r, the inner width")
    alpha: float = Field(16.0, gt=0, le=1e6, description="the update is scaled by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate on the input of A, in training")
    rslora: bool = Field(False, description="scale by alpha / sqrt(r)")
    dora: bool = Field(False, description="learn each output's norm apart from its direction")
    init: Literal["kaiming", "gaussian"] = Field("kaiming", description="how A is drawn")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        config = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        config |= {"num_attention_heads": 4, "num_key_value_heads": 2}
        lm = {"type": "backbone.causal_lm", "arch": "llama", "config": config, "prompt": "{question} {answer}"}
        adapter = {"type": cls.type, "host": "talk", "sites": "layers.*.attn.{q,v}", "rank": 4}
        vit = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_vit"},
        }
        on_vit = {"type": cls.type, "host": "eyes", "sites": "layers.*.attn.o", "rank": 2}
        count = 2 * 4 * ((32 + 32) + (32 + 16))
        return [
            ({"nodes": {"talk": lm}, "adapters": {"part": adapter}}, count),
            ({"nodes": {"talk": lm}, "adapters": {"part": {**adapter, "dora": True}}}, count + 2 * (32 + 16)),
            ({"nodes": vit, "edges": ["photo -> eyes"], "adapters": {"part": on_vit}}, 6 * 2 * (64 + 64)),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2}

    def inject(self, on: Host) -> None:
        from components.adapters._lora import put_low_rank

        put_low_rank(on, self.sites, self.rank, self.alpha, self.dropout, self.rslora, self.dora, self.init)

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        from components.adapters._peft import lora_config

        return lora_config(self, inserts)

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import lora_names

        return {lora_names(inserts)[key]: tensor for key, tensor in tensors.items()}

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import lora_names, ours

        return ours(lora_names(inserts), tensors, inserts)

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        from components.adapters._peft import lora_options

        return lora_options(config, keys, on)
