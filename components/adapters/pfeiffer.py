"""The one bottleneck a layer of Pfeiffer et al."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Pfeiffer(AdapterPart):
    """m + W_up f(W_down LN(m + x) + b1) + b2 on what the MLP adds, m, to the stream x: [B, T, d] (arXiv 2005.00247).

    The host then adds x and, where it norms after adding, applies that norm again; LN is that norm, and nothing in a
    host that norms before its sub-layers. W_down is [d / reduction, d].
    `scale: channel` learns a factor for each of the d outputs (Adapter+, arXiv 2406.06820), `learned` one for all.
    Parameters: layers * (2 * d * m + m + d) with m = d // reduction; with `scale: channel` + d, with `learned` + 1.
    """

    type = "adapter.pfeiffer"
    identity: ClassVar[bool] = False

    reduction: float = Field(16.0, ge=0.01, le=65_536, description="d / m, by which the inner width is narrower")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="f")
    init: Literal["bert", "houlsby", "zero"] = Field("bert", description="how the matrices are drawn")
    scale: float | Literal["learned", "channel"] = Field(1.0, description="of the change; learned ones start at one")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate between the two matrices, in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * (2 * WIDTH * 8 + 8 + WIDTH), reduction=4),
            on_vit(cls.type, 2 * 64 * 4 + 4 + 64 + 64, layers=[0], scale="channel"),
            on_vit(cls.type, 2 * (2 * 64 * 4 + 4 + 64), every=2),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"reduction": 4}

    def inject(self, on: Host) -> None:
        from components.adapters._bottleneck import AfterNorm

        for layer in on.layers():
            width = layer.width("mlp.out")
            norm = layer.borrow("norm2") if layer.post_norm else None
            inner = max(1, int(width // self.reduction))
            module = AfterNorm(norm, width, inner, self.activation, self.init, self.scale, self.dropout)
            layer.branch(module, "mlp.out", ["mlp.out", "mid"])
