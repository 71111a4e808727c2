"""AdapterFusion."""

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
class Fusion(MixerPart):
    """sum_n p_n V a_n with p = softmax_n(Q h . K a_n): attention over what N adapters change, for each token.

    a_n [B, T, d] is the change that adapter n makes, h what it reads (arXiv 2005.00247). V starts as the identity with
    1e-6 beside the diagonal, and `regularise` |I - V|^2 is added to the loss; Q and K are drawn from N(0, 0.02). The
    paper trains the adapters first, each alone, and then the fusion over them with the adapters frozen: two stages.
    `value: false` has no V, the library's static fusion.
    Parameters: points * (3 * d^2 + 2 * d), where the adapters under it act; without V 2 * d^2 + 2 * d.
    """

    type = "adapter.fusion"
    identity: ClassVar[bool] = False

    regularise: float = Field(0.01, ge=0, le=1e6, description="weight of |I - V|^2 in the loss")

    value: bool = Field(True, description="whether there is a V")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        two = {name: {"type": "adapter.pfeiffer", "host": "eyes", "reduction": 16} for name in ("one", "two")}
        found = []
        for matrices in (3, 2):
            tree, count = on_vit(cls.type, VIT_LAYERS * (matrices * VIT_WIDTH**2 + 2 * VIT_WIDTH), value=matrices == 3)
            composed = {"adapters": {**two, **tree["adapters"]}, "compose": {"eyes": "fuse(one, two, by=part)"}}
            found.append(({**tree, **composed}, count))
        return found

    def combine(self, on: Host, like: Insert, count: int) -> nn.Module:
        from components.adapters._fusion import Attention

        return Attention(on.width(like.at), self.regularise, like.module, self.value)
