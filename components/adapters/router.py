"""A router over adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import MixerPart
from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_vit

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class Router(MixerPart):
    """sum_n g_n a_n with g = softmax(G x / temperature) for each token, or over its `top` largest alone.

    a_n [B, T, d] is the change that adapter n makes and x [B, T, d_x] what it reads; G [N, d_x] is drawn from
    N(0, 0.02). `balance` weighs N sum_n f_n p_n in the loss, f_n the share of tokens sent to n and p_n its mean
    probability (arXiv 2101.03961). LoRAs under one router are computed as one low-rank change, without a loop.
    Parameters: points * N * d_x.
    """

    type = "adapter.router"
    identity: ClassVar[bool] = False

    top: int = Field(0, ge=0, le=1000, description="how many adapters a token takes; 0 is all")
    temperature: float = Field(1.0, gt=0, le=1e4, description="above 1 the gates are more even")
    balance: float = Field(0.0, ge=0, le=1e4, description="weight of the balance of the load in the loss")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        tree, count = on_vit(cls.type, VIT_LAYERS * 3 * VIT_WIDTH, top=2)
        lora = {"type": "adapter.lora", "host": "eyes", "sites": "layers.*.attn.o", "rank": 2}
        three = {name: lora for name in ("one", "two", "three")}
        composed = {"adapters": {**three, **tree["adapters"]}, "compose": {"eyes": "route(one, two, three, by=part)"}}
        return [({**tree, **composed}, count)]

    def combine(self, on: Host, like: Insert, count: int) -> nn.Module:
        from components.adapters._fusion import Gates

        return Gates(on.read_width(like), count, self.top, self.temperature, self.balance)
