"""The convolution of a Conformer beside the sub-layers of a spectrogram transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_vit
from components.adapters.parallel import beside

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class ConformerConv(AdapterPart):
    """P2 silu(BN(depthwise_k(glu(P1 u)))) along the tokens, added to what the sub-layer that reads u adds: [B, T, d].

    P1 [2 r, d], a filter of `kernel` k taps for each of r channels, P2 [d, r] (arXiv 2312.03694). P2 starts at zero, so
    that the start is the identity; `init: default` draws it as the released code does. The norms of the adapted
    sub-layers and the final one learn too. The paper's bottleneck at the same place is `adapter.parallel` with `size:
    12`, `activation: gelu`, `scale: 1` and `norms: all`. The filters see the tokens of one length that are all real.
    Parameters: layers * beside * ((2 * d * r + 2 * r) + (k * r + r) + 2 * r + (r * d + d)), and those of the norms.
    """

    type = "adapter.conformer_conv"
    families: ClassVar[tuple[str, ...] | None] = ("vit", "timm", "whisper", "ast")

    size: int = Field(8, ge=1, le=65_536, description="r, channels of the filters")
    kernel: int = Field(31, ge=1, le=9999, description="k, taps of a filter, an odd number")
    beside: list[Literal["attn", "mlp"]] = Field(["mlp"], min_length=1, description="the sub-layers")
    norms: Literal["none", "beside", "all"] = Field("all", description="the norms that learn too")
    init: Literal["zero", "default"] = Field("zero", description="how P2 starts")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        block = (2 * VIT_WIDTH * 4 + 8) + (3 * 4 + 4) + 8 + (4 * VIT_WIDTH + VIT_WIDTH)
        return [
            on_vit(cls.type, VIT_LAYERS * (block + 2 * VIT_WIDTH) + 2 * VIT_WIDTH, size=4, kernel=3),
            on_vit(cls.type, 2 * block, size=4, kernel=3, beside=["attn", "mlp"], norms="none", layers=[0]),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"size": 4, "kernel": 3}

    @model_validator(mode="after")
    def _odd(self) -> ConformerConv:
        if self.kernel % 2 == 0:
            raise ValueError(f"`kernel` is {self.kernel}; an odd number of taps has a middle")
        return self

    def inject(self, on: Host) -> None:
        from components.adapters._conformer_conv import ConformerConv as Module

        beside(on, self.beside, self.norms, lambda width: Module(width, self.size, self.kernel, self.init == "zero"))
