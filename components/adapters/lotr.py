"""LoTR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import KV_HEADS, LAYERS, VIT_LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from torch import Tensor

    from assembler.adapters.host import Host


@register
class Lotr(AdapterPart):
    """W_l x + (alpha / r) L M_l R x: L [out, r] and R [r, in] are those of all layers, M_l [r, r] is this layer's.

    Sites of the same name in different layers share L and R, the outer factors of one Tucker decomposition of their
    stacked updates (arXiv 2402.01376). With `init: normal` L and R are standard normal and M_l is zero; with `identity`
    M_l is the identity and L zero; with `tucker` L and R are the main directions of the host's own weights there and
    M_l is zero. Each starts as the identity. `cores_only` learns nothing but the M_l.
    Parameters: r * (in + out) for each name in `sites` + r * r for each site; with `cores_only` the latter alone.
    """

    type = "adapter.lotr"
    mergeable = True

    sites: str = Field("layers.*.attn.{q,v}", description="pattern over the host's canonical sites")
    rank: int = Field(8, ge=1, le=4096, description="r")
    alpha: float = Field(8.0, gt=0, le=1e6, description="the update is scaled by alpha / r")
    init: Literal["normal", "identity", "tucker"] = Field("normal", description="how the tensors start")
    cores_only: bool = Field(False, description="L and R stay as they start")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        outer = 4 * (WIDTH + WIDTH) + 4 * (WIDTH + KV_HEADS * 8)
        return [
            on_llama(cls.type, outer + 2 * LAYERS * 16, rank=4),
            on_llama(cls.type, outer + 2 * LAYERS * 16, rank=4, init="identity"),
            on_vit(cls.type, VIT_LAYERS * 9, rank=3, sites="layers.*.attn.o", init="tucker", cores_only=True),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2}

    def inject(self, on: Host) -> None:
        import torch

        from assembler.adapters.host import LAYER
        from components.adapters._lotr import Core, Factors

        kinds: dict[str, list[str]] = {}
        for site in on.linears(self.sites):
            kinds.setdefault(LAYER.sub(r"\1", site), []).append(site)
        for kind, sites in kinds.items():
            factors = Factors(*self._outer(on, sites), self.cores_only)
            on.share(f"outer_{kind.replace('.', '_')}", factors)
            for site in sites:
                core = torch.eye(self.rank) if self.init == "identity" else torch.zeros(self.rank, self.rank)
                on.branch(Core(factors, core, self.alpha / self.rank), f"{site}.out", [f"{site}.in"])

    def _outer(self, on: Host, sites: list[str]) -> tuple[Tensor, Tensor]:
        """L and R for sites of one name."""
        import torch

        from assembler.errors import AssemblerError
        from components.adapters._lora import Weight
        from components.adapters._lotr import tucker

        shapes = {on.shape(site) for site in sites}
        if len(shapes) > 1:
            raise AssemblerError(f"{sites[0]} and its like in other layers differ in shape, and LoTR shares L and R")
        inputs, outputs = shapes.pop()
        if self.init == "tucker" and not on.parameter.is_meta:
            if self.rank > min(inputs, outputs):
                raise AssemblerError(f"`init: tucker` takes a rank up to {min(inputs, outputs)} at {sites[0]}")
            return tucker([Weight(on, site)()[0] for site in sites], self.rank)
        left, right = torch.randn(outputs, self.rank), torch.randn(self.rank, inputs)
        return (torch.zeros_like(left) if self.init == "identity" else left), right
