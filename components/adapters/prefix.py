"""Prefix tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import KV_HEADS, LAYERS, VIT_LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class Prefix(AdapterPart):
    """softmax(q [K_p; k]^T / sqrt(d_h)) [V_p; v]: `length` learned keys and values before those of every layer.

    K_p and V_p are [H_kv, length, d_h] (arXiv 2101.00190), seen by every query and without positions. They are drawn
    from N(0, 1); with `bottleneck` b they are W2 tanh(W1 E + b1) + b2 of one table E [length, d], whose W1 [b, d] all
    layers share. The layers are those of PEFT's prefix tuning.
    Parameters: length * layers * 2 * d_kv; with a bottleneck length * d + (d * b + b) + layers * 2 * d_kv * (b + 1).
    """

    type = "adapter.prefix"
    trait = "whole"
    peft_type = "PREFIX_TUNING"
    identity: ClassVar[bool] = False

    length: int = Field(30, ge=1, le=10_000, description="number of keys and values")
    bottleneck: int = Field(0, ge=0, le=65_536, description="b; 0 learns keys and values themselves")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        kv = KV_HEADS * WIDTH // 4
        with_mlp = 3 * VIT_WIDTH + VIT_WIDTH * 5 + 5 + VIT_LAYERS * (5 + 1) * 2 * VIT_WIDTH
        return [
            on_llama(cls.type, 3 * LAYERS * 2 * kv, length=3),
            on_vit(cls.type, with_mlp, length=3, bottleneck=5),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"length": 3, "bottleneck": 4}

    def inject(self, on: Host) -> None:
        from components.adapters._prefix import Trunk, prefix

        layers = on.layers()
        trunk = None
        if self.bottleneck:
            trunk = Trunk(self.length, layers[0].width("in"), self.bottleneck)
            on.share("trunk", trunk)
        for layer in layers:
            layer.attend(prefix(layer.heads(), self.length, trunk))

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        from components.adapters._peft import prefix_config

        return None if self.bottleneck else prefix_config(self.length, inserts)

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        import torch

        return {"prompt_embeddings": torch.cat([tensors[f"{key}.table"] for key in inserts], 1)}

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import prefix_tensors

        return prefix_tensors(inserts, tensors)

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        from components.adapters._peft import prefix_options

        return prefix_options(config)
