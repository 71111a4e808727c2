"""Learned tokens in the layers of an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_bert, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class DeepPrompt(AdapterPart):
    """layer([P_l; X]) without what it gives for P_l: `length` learned tokens P_l [length, d] in front of each layer's.

    Every token attends to them (VPT, arXiv 2203.12119; for spectrograms 2312.03694). They are drawn from a uniform of
    +- sqrt(3 / d). With `deep: false` the first layer's go on through all layers, and no other has its own. The host is
    an encoder whose positions are in its tokens.
    Parameters: layers * length * d, without `deep` length * d.
    """

    type = "adapter.deep_prompt"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("bert", "vit", "timm", "whisper", "wav2vec2", "ast")

    length: int = Field(25, ge=1, le=10_000, description="learned tokens of a layer")
    deep: bool = Field(True, description="new ones in every layer")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_vit(cls.type, VIT_LAYERS * 3 * VIT_WIDTH, length=3),
            on_bert(cls.type, 3 * 16, length=3, deep=False),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"length": 3}

    def inject(self, on: Host) -> None:
        from components.adapters._deep_prompt import Prompted

        layers = on.layers()
        for layer in layers:
            first, last = self.deep or layer is layers[0], self.deep or layer is layers[-1]
            layer.around(Prompted(layer.width("out"), self.length, first, last))
