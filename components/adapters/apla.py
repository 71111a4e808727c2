"""APLA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import LAYERS, VIT_LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Apla(AdapterPart):
    """W x + b of attention's output projection, where `rank` rows of W [out, in] and b learn (arXiv 2503.11335).

    The rows, drawn once for each layer, are the adapter's own copies of the host's, so that the start is the identity
    and merging writes them back. Without `rank` all rows learn.
    Parameters: sum over the sites of rank * in, and rank where there is a bias; without `rank` out stands for it.
    """

    type = "adapter.apla"
    trait = "whole"
    mergeable = True

    sites: str = Field("layers.*.attn.o", description="pattern over the host's canonical sites")
    rank: int | None = Field(None, ge=1, le=65_536, description="how many outputs learn; all where it is left out")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_vit(cls.type, VIT_LAYERS * 8 * (VIT_WIDTH + 1), rank=8),
            on_vit(cls.type, VIT_LAYERS * VIT_WIDTH * (VIT_WIDTH + 1)),
            on_llama(cls.type, LAYERS * 2 * 3 * WIDTH, rank=3, sites="layers.*.attn.{o,v}"),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 4}

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._apla import Rows
        from components.adapters._lora import Weight

        for site in on.linears(self.sites):
            weight, bias = Weight(on, site)()
            if self.rank is not None and self.rank > len(weight):
                raise AssemblerError(f"`rank` {self.rank} is more than the {len(weight)} outputs of {site}")
            on.weight(Rows(weight, bias, self.rank or len(weight)), site)
