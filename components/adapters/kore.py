"""KORE's adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, KV_HEADS, LAYERS, VIT_LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host
    from assembler.adapters.prepare import Trial


@register
class Kore(AdapterPart):
    """W x + B A x, where A [r, in] spans the null space of what each linear read for old knowledge (arXiv 2510.19316).

    `assembler adapters prepare`, on a spec whose data is the old knowledge, sums C = X'X [in, in] over the inputs of
    every linear and takes the r eigenvectors of the smallest eigenvalues as U, so that U'x is near zero for old inputs.
    `variant: frozen` is A = U' that stays, and B [out, r] that starts at zero and learns; `projected` starts from
    B A = W U U', split in equal parts by its singular values, with W - W U U' left in the host's place, and both learn.
    Either way the start is the identity. What a projector learns beside it, a stage says.
    Parameters: sum over the sites of r * out; with `projected` r * (in + out).
    """

    type = "adapter.kore"
    mergeable = True

    sites: str = Field("layers.*", description="pattern over the host's canonical sites: linears, or what holds them")
    rank: int = Field(235, ge=1, le=8192, description="r")
    variant: Literal["frozen", "projected"] = Field("frozen", description="what learns")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        outputs = 2 * WIDTH + 2 * KV_HEADS * 8 + 2 * INNER + WIDTH
        o = "layers.*.attn.o"
        return [
            on_llama(cls.type, LAYERS * 4 * outputs, rank=4),
            on_vit(cls.type, VIT_LAYERS * 3 * (64 + 64), rank=3, variant="projected", sites=o),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2}

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._kore import NullSpace, Projected, orthonormal
        from components.adapters._lora import Weight

        made = NullSpace if self.variant == "frozen" else Projected
        for site in on.linears(self.sites):
            inputs, _ = on.shape(site)
            if self.rank > inputs:
                raise AssemblerError(f"`rank` {self.rank} is more than the {inputs} inputs of {site}")
            module = made(Weight(on, site)()[0], orthonormal(self.rank, inputs))
            on.branch(module, f"{site}.out", [f"{site}.in"])

    def unprepared(self) -> str:
        return "the null space of old knowledge is found on data"

    def prepare(self, trial: Trial) -> None:
        from components.adapters._kore import into_null_space

        into_null_space(trial)
