"""(IA)3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, KV_HEADS, LAYERS, TIMM_LAYERS, VIT_INNER, VIT_WIDTH, on_llama, on_timm

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class Ia3(AdapterPart):
    """l_k * (W_k x), l_v * (W_v x) and W_down (l_ff * f(W_up x)): learned scales of keys, values and the MLP's inside.

    The scales are vectors that start at one (arXiv 2205.05638); all fold into the weights.
    Parameters: layers * (d_k + d_v + d_ff).
    """

    type = "adapter.ia3"
    mergeable = True
    peft_type = "IA3"

    outputs: str = Field("layers.*.attn.{k,v}", description="sites whose output is scaled")
    inputs: str = Field("layers.*.mlp.down", description="sites whose input is scaled; empty for none")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * (2 * KV_HEADS * 8 + INNER)),
            on_timm(cls.type, TIMM_LAYERS * (2 * VIT_WIDTH + VIT_INNER)),
        ]

    def inject(self, on: Host) -> None:
        from components.adapters._ia3 import ScaledInput, ScaledOutput

        for site in on.matching(self.outputs):
            on.branch(ScaledOutput(on.width(f"{site}.out")), f"{site}.out", replace=True)
        for site in on.matching(self.inputs) if self.inputs else ():
            on.branch(ScaledInput(on.width(f"{site}.in")), f"{site}.in", replace=True)

    def peft_config(self, inserts: Mapping[str, Insert]) -> dict[str, Any] | None:
        from components.adapters._peft import ia3_config

        return ia3_config(inserts)

    def to_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import ia3_names

        shapes = {key: (1, -1) if inserts[key.partition(".")[0]].point.side == "in" else (-1, 1) for key in tensors}
        return {ia3_names(inserts)[key]: tensor.reshape(shapes[key]) for key, tensor in tensors.items()}

    def from_peft(self, inserts: Mapping[str, Insert], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from components.adapters._peft import ia3_names, ours

        return ours(ia3_names(inserts), tensors, inserts)

    @classmethod
    def peft_options(cls, config: Mapping[str, Any], keys: Sequence[str], on: Host) -> dict[str, Any]:
        from components.adapters._peft import ia3_options

        return ia3_options(config, keys, on)
