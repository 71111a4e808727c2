"""The OpAmp adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import KV_HEADS, LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Opamp(AdapterPart):
    """M = A_d (M1 - M2) + A_c / 2 (M1 + M2) in place of softmax(Q K' / sqrt(d)) in every n-th layer (arXiv 2502.12502).

    M1 and M2 are the score maps of E(Q) and E(K) with two pairs of E(x) = x + s W2 gelu(W1 x), over all heads together,
    [H d -> m -> H d] without bias, after rotary positions and the cache; the values are as they were. A_d = `gain` over
    A_c = `common` is the rejection of what both maps share. W2 starts at zero, so that M1 = M2 and the start is the
    identity; the rows of M sum to A_c. The maps are applied to V before they are combined, which is the same.
    Parameters: layers * 4 * m * d * (heads + key and value heads).
    """

    type = "adapter.opamp"
    trait = "whole"

    every: int = Field(2, ge=1, le=1000, description="each n-th layer, from the first")
    size: int = Field(64, ge=1, le=65_536, description="m, the inner width")
    scale: float = Field(1.0, gt=0, le=1e4, description="s")
    gain: float = Field(10.0, ge=0, le=1e6, description="A_d")
    common: float = Field(1.0, ge=0, le=1e6, description="A_c")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate on the input of W1, in training")
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2", "bert", "vit", "timm", "whisper")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * 4 * 4 * (WIDTH + KV_HEADS * 8), size=4, every=1),
            on_vit(cls.type, 2 * 4 * 2 * 2 * VIT_WIDTH, size=2),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"size": 4, "every": 1}

    def inject(self, on: Host) -> None:
        from components.adapters._opamp import OpAmp

        for layer in on.layers():
            gains = (self.gain, self.common)
            layer.attend(OpAmp(layer.heads(), self.size, self.scale, gains, self.dropout))
