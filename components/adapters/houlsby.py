"""The serial bottlenecks of Houlsby et al."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Houlsby(AdapterPart):
    """h + W_up f(W_down h + b1) + b2 on what attention and the MLP add to the stream, before they add it.

    h is [B, T, d], W_down [m, d] and W_up [d, m] (arXiv 1902.00751). Both are drawn from a truncated normal of
    deviation 1e-3, so that the start is near the identity but not it; `init: zero` makes it exact. With `norms` the
    adapter also has its own copies of the host's layer norms, as in the paper.
    Parameters: layers * after * (2 * d * m + m + d), and with `norms` those of the norms.
    """

    type = "adapter.houlsby"
    identity: ClassVar[bool] = False

    size: int = Field(64, ge=1, le=65_536, description="m, the inner width")
    after: list[Literal["attn", "mlp"]] = Field(["attn", "mlp"], min_length=1, description="the sub-layers")
    activation: Literal["gelu", "relu", "silu", "tanh"] = Field("gelu", description="f")
    init: Literal["houlsby", "bert", "zero"] = Field("houlsby", description="how the matrices are drawn")
    norms: bool = Field(True, description="learn the layer norms too")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate between the two matrices, in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        blocks = LAYERS * 2 * (2 * WIDTH * 4 + 4 + WIDTH)
        return [
            on_llama(cls.type, blocks + (2 * LAYERS + 1) * WIDTH, size=4),
            on_vit(cls.type, 2 * (2 * 64 * 4 + 4 + 64), size=4, norms=False, layers=[-1]),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"size": 4}

    def inject(self, on: Host) -> None:
        from components.adapters._bottleneck import Bottleneck

        for layer in on.layers():
            for point in (f"{name}.out" for name in self.after):
                width = layer.width(point)
                module = Bottleneck(width, self.size, self.activation, self.init, dropout=self.dropout)
                layer.branch(module, point)
        if self.norms:
            for site in on.norms():
                on.own(site)
