"""EigenLoRAx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import LAYERS, VIT_LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host
    from assembler.adapters.prepare import Trial
    from components.adapters._eigenlorax import Loadings


@register
class Eigenlorax(AdapterPart):
    """W x + B A' x with A = V_a C_a [in, r] and B = V_b C_b [out, r], of which only C [K, r] learns (arXiv 2502.04700).

    `assembler adapters prepare` finds V_a [in, K] and V_b [out, K] of every site: the main directions of the factors of
    the LoRAs that `loras` names, centred, filled up with drawn ones where those span fewer. The loadings start uniform
    in (-0.5, 0.5), as the first LoRA's (`project`), or with C_b zero, which alone is the identity. There is no scale.
    With `learns: factors`, the paper's other use of the directions, A and B only start so, and learn as LoRA's do.
    Parameters: sum over the sites of 2 * K * r, with `learns: factors` of r * (in + out).
    """

    type = "adapter.eigenlorax"
    identity: ClassVar[bool] = False
    mergeable = True

    sites: str = Field("layers.*.attn.{q,v}", description="pattern over the host's canonical sites")
    directions: int = Field(8, ge=1, le=4096, description="K")
    rank: int = Field(32, ge=1, le=4096, description="r")
    loras: list[str] = Field(
        [], max_length=1000, description="folders of LoRAs of this host, such as file:adapters/one"
    )
    init: Literal["uniform", "project", "zero"] = Field("uniform", description="how the loadings start")
    learns: Literal["loadings", "factors"] = Field("loadings", description="C alone, or A and B themselves")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * 2 * 2 * 4 * 2, directions=4, rank=2),
            on_vit(cls.type, VIT_LAYERS * 2 * 5 * 3, directions=5, rank=3, sites="layers.*.attn.o", init="zero"),
            on_llama(
                cls.type, LAYERS * 2 * (WIDTH + WIDTH), directions=4, rank=2, sites="layers.*.attn.q", learns="factors"
            ),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"directions": 4, "rank": 2}

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._eigenlorax import Factors

        for site in on.linears(self.sites):
            widths = on.shape(site)
            if self.directions > min(widths):
                raise AssemblerError(f"`directions` {self.directions} is more than {site} has, {min(widths)}")
            module = self._loadings(*widths)
            on.branch(Factors(module) if self.learns == "factors" else module, f"{site}.out", [f"{site}.in"])

    def _loadings(self, inputs: int, outputs: int) -> Loadings:
        from components.adapters._eigenlorax import Loadings, drawn_basis

        bases = (drawn_basis(inputs, self.directions), drawn_basis(outputs, self.directions))
        return Loadings(bases, self.rank, self.init)

    def unprepared(self) -> str:
        return "its directions are found in other LoRAs"

    def prepare(self, trial: Trial) -> None:
        from components.adapters._eigenlorax import fit

        fit(trial, self.loras, self._loadings, project=self.init == "project")
