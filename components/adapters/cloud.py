"""Cloud-Adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class CloudAdapter(AdapterPart):
    """x + L_o softmax(q k^T / sqrt(d_h)) v on the patches after each layer; q = L_q x, k = L_k F, v = L_v F.

    F [B, c, h, w] is the context that a small convolutional network makes of the image: `scales` blocks, each after the
    first at half the size, pooled to the last one's size and summed; then resized to the grid of the patches. Each L
    is a product of two matrices of rank r, through inner width e = heads * 64; class tokens go past (arXiv 2411.13127).
    `init: zero` starts the last factor at zero, so that the start is the identity; the paper draws it. `filters:
    depthwise` makes the blocks' convolutions depthwise, as they are named; the released ones, and the paper's count,
    are full.
    Parameters: layers * (2 * (d * r + r * e) + 2 * (c * r + r * e)) + scales * (9 * c * c + c * c + 4 * c)
    + C * C + C * c + 2 * C + 2 * c for C channels of the image; depthwise 9 * c for 9 * c * c and C for C * C.
    """

    type = "adapter.cloud"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("vit",)

    channels: int = Field(64, ge=1, le=4096, description="c, of the context")
    scales: int = Field(5, ge=1, le=8, description="sizes at which the image is seen")
    rank: int = Field(16, ge=1, le=4096, description="r")
    heads: int = Field(8, ge=1, le=256, description="of the cross-attention, 64 wide each")
    filters: Literal["full", "depthwise"] = Field("full", description="the convolutions of the context")
    init: Literal["default", "zero"] = Field("default", description="how the last factor starts")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        layer = 2 * (VIT_WIDTH * 2 + 2 * 64) + 2 * (4 * 2 + 2 * 64)
        options: dict[str, Any] = {"channels": 4, "scales": 2, "rank": 2, "heads": 1}
        full, light = 9 * 16, 9 * 4
        return [
            on_vit(cls.type, VIT_LAYERS * layer + 2 * (full + 16 + 16) + 9 + 12 + 6 + 8, **options),
            on_vit(
                cls.type,
                layer + 2 * (light + 16 + 16) + 3 + 12 + 6 + 8,
                every=3,
                filters="depthwise",
                init="zero",
                **options,
            ),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"channels": 4, "scales": 2, "rank": 2, "heads": 1}

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from assembler.errors import AssemblerError
        from components.adapters._cloud import Context, Cross, See

        embed = on.module("embed") if on.has("embed") else None
        stride = getattr(embed, "stride", None)
        if not isinstance(stride, tuple) or len(stride) != 2:
            raise AssemblerError(
                f"{type(on.root).__name__} cuts no patches by a convolution, as Cloud-Adapter reads them"
            )
        context = Context(on.width("embed.in"), self.channels, self.scales, self.filters == "depthwise", stride)
        on.around(See(context), "embed")
        for layer in on.layers():
            module = Cross(Borrowed(context), layer.width("out"), self.channels, self.rank, self.heads)
            if self.init == "zero":
                module.zero()
            layer.branch(module, "out")
