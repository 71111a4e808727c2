"""The bottleneck of the comparison on speech models."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_vit
from components.adapters.houlsby import Houlsby


@register
class SpeechBottleneck(Houlsby):
    """h + W_up f(W_down h + b1) + b2 on what each MLP of a speech encoder adds, h [B, T, d] (arXiv 2210.06175).

    Houlsby's bottleneck once a layer, drawn near the identity; `init: zero` makes the start exact. The comparison's
    other families are `adapter.lora`, `adapter.adapter_bias` with `reads: output`, `adapter.bitfit`, `adapter.prefix`,
    and the weighted sum of layers, `mix` of the encoders.
    Parameters: layers * after * (2 * d * m + m + d), and with `norms` those of the norms.
    """

    type = "adapter.speech_bottleneck"
    families: ClassVar[tuple[str, ...] | None] = ("wav2vec2", "whisper", "ast")

    size: int = Field(32, ge=1, le=65_536, description="m, the inner width")
    after: list[Literal["attn", "mlp"]] = Field(["mlp"], min_length=1, description="the sub-layers")
    norms: bool = Field(False, description="learn the layer norms too")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [on_vit(cls.type, VIT_LAYERS * (2 * VIT_WIDTH * 4 + 4 + VIT_WIDTH), size=4)]
