"""LayRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, KV_HEADS, VIT_INNER, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Layra(AdapterPart):
    """W x + (alpha / r) B A x on every linear of the first and last few layers, for a new language (arXiv 2509.11414).

    Early layers read a language, those in the middle think and the late ones write, so that only the ends learn.
    Languages come one after the other, each with its own adapter over those before it, merged. What instruction
    tuning changed in the base is added back by `components.adapters._residual`. B starts at zero, so that the start is
    the identity. `layers`, where given, counts instead of `first` and `last`.
    Parameters: (first + last) * r * sum over the linears of a layer of (in + out).
    """

    type = "adapter.layra"
    mergeable = True

    first: int = Field(10, ge=0, le=1000, description="how many layers at the start")
    last: int = Field(2, ge=0, le=1000, description="how many layers at the end")
    sites: str = Field("layers.*", description="pattern over the host's canonical sites: linears, or what holds them")
    rank: int = Field(8, ge=1, le=4096, description="r")
    alpha: float = Field(16.0, gt=0, le=1e6, description="the update is scaled by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate on the input of A, in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        llama = 4 * (2 * (WIDTH + WIDTH) + 2 * (WIDTH + KV_HEADS * 8) + 3 * (WIDTH + INNER))
        vit = 2 * (4 * 2 * VIT_WIDTH + 2 * (VIT_WIDTH + VIT_INNER))
        return [
            on_llama(cls.type, llama, rank=4, first=1, last=0),
            on_vit(cls.type, 2 * vit, rank=2, first=1, last=1),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2, "first": 1, "last": 1}

    def inject(self, on: Host) -> None:
        from components.adapters._lora import low_rank

        ends = [*range(self.first), *(-i - 1 for i in range(self.last))]
        depth = min(layer.depth for layer in on.layers())
        chosen = self.layers or [i for i in ends if -depth <= i < depth]
        on.part = self.model_copy(update={"layers": chosen})
        for site in on.linears(self.sites):
            module = low_rank(on, site, self.rank, self.alpha / self.rank, self.dropout)
            on.branch(module, f"{site}.out", [f"{site}.in"])
