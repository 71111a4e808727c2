"""CoDA, conditional adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_WIDTH, on_bert, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host, Layer
    from components.adapters._coda import Everyone


@register
class Coda(AdapterPart):
    """X + A(LN X) + P^T lambda_k (F(P X) - P X): every token passes a bottleneck A, and few the frozen layer F.

    A router scores tokens, s = X w, and lambda in [0, 1]^n is the soft top-k of s: what maximises s . lambda + eps *
    entropy under sum lambda = k, by `steps` rounds in which eps falls from 4 by 0.7 a round to `eps`. P picks the k =
    ceil(n / reduction) tokens of the largest lambda, which attend to each other alone (k-to-k of arXiv 2304.04947) or,
    with `attends: all`, to all tokens (k-to-all). With `reduction: 1` lambda is one. A's up projection is zero at
    first. The paper first goes on with the model's own pre-training, router and adapters and model together, and then
    learns adapters, routers and norms: two stages. The host is an encoder whose positions are in its tokens.
    Parameters: layers * (2 * d * m + m + d + d + 2 * d).
    """

    type = "adapter.coda"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("bert", "vit", "timm")

    reduction: float = Field(3.0, ge=1, le=1000, description="n / k")
    size: int = Field(64, ge=1, le=65_536, description="m, the adapter's inner width")
    attends: Literal["chosen", "all"] = Field("chosen", description="what the chosen tokens attend to")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="inside the adapter")
    steps: int = Field(20, ge=1, le=1000, description="rounds of the soft top-k")
    eps: float = Field(0.1, gt=0, le=4, description="weight of the entropy at its end")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def each(d: int) -> int:
            return 2 * d * 4 + 4 + d + d + 2 * d

        return [
            on_vit(cls.type, 2 * each(VIT_WIDTH), size=4, every=2),
            on_bert(cls.type, 2 * each(16), size=4, reduction=2, steps=8),
            on_vit(cls.type, 2 * each(VIT_WIDTH), size=4, layers=[1, 2], attends="all"),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"size": 4, "reduction": 2, "eps": 1.0}

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._bottleneck import Bottleneck
        from components.adapters._coda import Conditional
        from components.adapters._masks import keep_mask

        mask = Borrowed(keep_mask(on))
        for layer in on.layers():
            width = layer.width("out")
            adapter = Bottleneck(width, self.size, self.activation)
            everyone = self._everyone(layer) if self.attends == "all" else None
            layer.around(Conditional(width, adapter, self.reduction, self.steps, self.eps, mask, everyone))

    def _everyone(self, layer: Layer) -> Everyone:
        """Lets the layer's attention read keys and values of all tokens."""
        from components.adapters._coda import Everyone
        from components.adapters._lora import Weight
        from components.adapters._moa import Frozen

        keys, values = (Frozen(Weight(layer.on, layer.name(site))) for site in ("attn.k", "attn.v"))
        everyone = Everyone(layer.heads(), None if layer.post_norm else layer.borrow("norm1"), (keys, values))
        layer.attend(everyone)
        return everyone
