"""FiLM on a host's norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_timm, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Film(AdapterPart):
    """gamma * norm(x) + beta, a scale and a shift for each channel of the host's norms, batch or layer norms.

    gamma starts at one and beta at zero, so that the start is the identity. It is all of the body that First Session
    Adaptation learns, from the first classes alone (arXiv 2303.13199). `after: depthwise` takes, within layers, only
    norms behind a depthwise convolution, as is usual in EfficientNets.
    Parameters: 2 * the sum of the channels of these norms.
    """

    type = "adapter.film"
    trait = "whole"
    mergeable = True
    families: ClassVar[tuple[str, ...] | None] = ("gpt2", "bert", "vit", "timm", "whisper", "wav2vec2", "ast")

    after: Literal["norms", "depthwise"] = Field("norms", description="all norms, or those behind depthwise filters")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        channels = 24 + 128 + 192 + 256  # the stem, the filters of the last two blocks, and the head
        return [
            on_vit(cls.type, 2 * (2 * VIT_LAYERS + 1) * VIT_WIDTH),
            on_timm(cls.type, 2 * channels, model="test_efficientnet", after="depthwise"),
        ]

    def inject(self, on: Host) -> None:
        from assembler.adapters.tap import foldable
        from assembler.errors import AssemblerError
        from components.adapters._film import Film as Module
        from components.adapters._film import behind_depthwise

        for site in on.norms():
            if not foldable(on.module(site)):
                raise AssemblerError(f"{site} is a {type(on.module(site)).__name__}; FiLM is of layer and batch norms")
            if self.after == "norms" or "layers." not in site or behind_depthwise(on.root, on.place(site).path):
                on.weight(Module(on.width(f"{site}.out")), site)
