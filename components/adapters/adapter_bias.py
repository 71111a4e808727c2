"""AdapterBias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, LAYERS, VIT_INNER, VIT_LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class AdapterBias(AdapterPart):
    """W2 u + b2 + a(u) v on the second linear of every MLP, u [B, T, d_ff] its inside (arXiv 2205.00305).

    v [d] is one direction for all tokens and a: R^d_ff -> R says how far each goes, which can be read as its weight in
    the task. v starts at zero, so that the start is the identity. `norms` also learns the layer norm after each MLP, as
    the paper does, where the host norms after it adds. `shared` has one a for all layers.
    Parameters: layers * (d + d_ff + 1), with `shared` layers * d + d_ff + 1; and 2 * d a layer for the norms.
    """

    type = "adapter.adapter_bias"
    mergeable = True

    shared: bool = Field(False, description="one a for all layers")
    norms: bool = Field(True, description="learn the norm after each MLP, in hosts that norm after they add")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * (WIDTH + INNER + 1)),
            on_vit(cls.type, VIT_LAYERS * VIT_WIDTH + VIT_INNER + 1, shared=True),
        ]

    def inject(self, on: Host) -> None:
        from torch import nn

        from assembler.adapters.host import Borrowed
        from components.adapters._adapter_bias import TokenShift

        layers = on.layers()
        shared = None
        if self.shared:
            shared = Borrowed(on.share("size", nn.Linear(layers[0].width("mlp.down.in"), 1)))
        for layer in layers:
            size = shared or nn.Linear(layer.width("mlp.down.in"), 1)
            layer.branch(TokenShift(size, layer.width("mlp.down.out")), "mlp.down.out", ["mlp.down.in"])
            if self.norms and layer.post_norm:
                layer.own("norm2")
