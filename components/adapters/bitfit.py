"""BitFit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_INNER, VIT_LAYERS, VIT_WIDTH, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Bitfit(AdapterPart):
    """W x + (b + delta): the biases that the host has, of linears, convolutions and norms, are all that learns.

    delta starts at zero, so that the start is the identity (arXiv 2106.10199). `where: layers` leaves those out that
    are in no layer, such as the final norm's.
    Parameters: the sum of the sizes of the biases.
    """

    type = "adapter.bitfit"
    trait = "whole"
    mergeable = True
    families: ClassVar[tuple[str, ...] | None] = ("gpt2", "bert", "vit", "timm", "whisper", "wav2vec2", "ast")

    where: Literal["all", "layers"] = Field("all", description="all biases, or those in layers")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        layer = 3 * VIT_WIDTH + VIT_WIDTH + VIT_INNER + VIT_WIDTH + 2 * VIT_WIDTH
        return [
            on_vit(cls.type, VIT_LAYERS * layer + 2 * VIT_WIDTH),
            on_vit(cls.type, layer, where="layers", layers=[1]),
        ]

    def inject(self, on: Host) -> None:
        from components.adapters._bitfit import Shift

        for site in on.biased():
            if self.where == "all" or "layers." in site:
                on.weight(Shift(on.module(site).bias), site)  # type: ignore[arg-type]
