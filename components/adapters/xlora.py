"""X-LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from assembler.part import MixerPart
from assembler.registry import register
from components.adapters._examples import LAYERS, WIDTH, on_llama

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class XLora(MixerPart):
    """W x + sum_n s_n (alpha_n / r_n) B_n A_n x, whose scalings s [B, T, layers, N] a head reads from a first run.

    arXiv 2402.07148, for causal LMs. The first run is the host with every s_n at `first`, by default without adapters,
    and without gradients; H [B, T, d] are its last hidden states. The head is one linear (`depth: 1`) or depth - 1
    layers of `width` with ReLU and dropout before it; softmax over the N adapters, divided by `temperature` before,
    over the `top` largest alone where that is not 0. Without `layerwise` all layers have the same scalings. It stands
    as `by=` of a `route` over trained LoRAs; a stage trains it alone. While it decodes, each run has its own cache.
    Parameters: m = N * points, or N; depth 1: d * m + m; else d * w + w + (depth - 2) * (w * w + w) + w * m + m.
    """

    type = "adapter.xlora"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2")
    exports = "it runs its host twice for each token, and the graphs of a bundle run it once"

    depth: int = Field(1, ge=1, le=16, description="layers of the head")
    width: int = Field(2048, ge=1, le=65_536, description="w, of the layers before the head's last")
    dropout: float = Field(0.2, ge=0, lt=1, description="rate inside the head, in training")
    temperature: float = Field(1.0, gt=0, le=1e4, description="above 1 the scalings are more even")
    top: int = Field(0, ge=0, le=1000, description="how many adapters a token takes; 0 is all")
    first: float = Field(0.0, ge=0, le=1e4, description="the scaling of all adapters in the first run")
    layerwise: bool = Field(True, description="scalings of their own for each point")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def routed(tree: dict[str, Any], host: str) -> dict[str, Any]:
            lora = {"type": "adapter.lora", "host": host, "sites": "layers.*.attn.v", "rank": 2, "layers": [0, 1]}
            adapters = {"one": lora, "two": lora, **tree["adapters"]}
            return {**tree, "adapters": adapters, "compose": {host: "route(one, two, by=part)"}}

        flat, _ = on_llama(cls.type, None)
        deep, _ = on_llama(cls.type, None, depth=3, width=8, layerwise=False)
        return [
            (routed(flat, "talk"), WIDTH * 2 * LAYERS + 2 * LAYERS),
            (routed(deep, "talk"), WIDTH * 8 + 8 + 8 * 8 + 8 + 8 * 2 + 2),
        ]

    @field_validator("top")
    @classmethod
    def _learns(cls, top: int) -> int:
        if top == 1:
            raise ValueError(
                "with `top: 1` the one scaling is always 1, so that nothing is learned; take 2, or 0 for all"
            )
        return top

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._xlora import Capture, Scalings, TwoRuns

        layers = len(on.mixed) if self.layerwise else 1
        width = on.width("final.out")
        sizes = (width, layers, on.options, self.depth, self.width, self.dropout, self.temperature, self.top)
        scalings = Borrowed(on.share("scalings", Scalings(*sizes)))
        super().inject(on)
        on.around(Capture(scalings), "final")
        on.around(TwoRuns(scalings), "")

    def combine(self, on: Host, like: Insert, count: int) -> nn.Module:
        from assembler.adapters.host import Borrowed
        from components.adapters._xlora import Scaled

        layer = on.mixed.index(like) if self.layerwise else 0
        return Scaled(Borrowed(on.shared["scalings"]), layer, count, self.first)
