"""AdapterBias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

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
    the task. v starts at zero, so that the start is the identity. `reads: output` lets a read what the MLP gives, d
    wide, as in the comparison on speech of arXiv 2210.06175. `norms` also learns the layer norm after each MLP, as the
    paper does, where the host norms after it adds. `shared` has one a for all layers.
    Parameters: layers * (d + e + 1), with `shared` layers * d + e + 1, where e is d_ff, with `reads: output` d; and
    2 * d a layer for the norms.
    """

    type = "adapter.adapter_bias"
    mergeable = True

    reads: Literal["inside", "output"] = Field("inside", description="what a reads: u, or the linear's output")
    shared: bool = Field(False, description="one a for all layers")
    norms: bool = Field(True, description="learn the norm after each MLP, in hosts that norm after they add")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * (WIDTH + INNER + 1)),
            on_vit(cls.type, VIT_LAYERS * VIT_WIDTH + VIT_INNER + 1, shared=True),
            on_vit(cls.type, VIT_LAYERS * (2 * VIT_WIDTH + 1), reads="output"),
        ]

    def inject(self, on: Host) -> None:
        from torch import nn

        from assembler.adapters.host import Borrowed
        from components.adapters._adapter_bias import TokenShift

        layers, at, shared = on.layers(), "mlp.down.out", None
        read = at if self.reads == "output" else "mlp.down.in"
        if self.shared:
            shared = Borrowed(on.share("size", nn.Linear(layers[0].width(read), 1)))
        for layer in layers:
            size = shared or nn.Linear(layer.width(read), 1)
            layer.branch(TokenShift(size, layer.width(at), read == at), at, [read])
            if self.norms and layer.post_norm:
                layer.own("norm2")
