"""PEMA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import WIDTH, on_llama

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Pema(AdapterPart):
    """p = lam softmax(W B_pd A f) + (1 - lam) softmax(W f) beside the frozen head W of a causal LM (arXiv 2311.08590).

    f [B, T, d] is the final state, A [r, d], B_pd [d, r], and B_rct [d, r] rebuilds f from A f. The first stage has the
    adapter itself as its only objective, |B_rct A f - f|^2; the second adds the LM's cross entropy of W B_pd A f:
    kappa * MSE + (1 - kappa) * CE, divided by 1 - kappa. Nothing is learned through the LM, which is run without
    gradients. While it serves, lam is `share`, or what is laid on the wire `share` [B] (`book.wires(name)["share"]`),
    which the paper lowers word by word from 0.9 on. The paper drops B_rct then. Padding counts as tokens.
    Parameters: 3 * d * r.
    """

    type = "adapter.pema"
    trait = "whole"
    identity: ClassVar[bool] = False
    auxiliary: ClassVar[bool] = True
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2")

    rank: int = Field(512, ge=1, le=65_536, description="r")
    kappa: float = Field(0.2, ge=0, lt=1, description="share of the reconstruction in the loss")
    share: float = Field(0.9, ge=0, le=1, description="lam, the adapter's share of the distribution")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [on_llama(cls.type, 3 * WIDTH * 4, rank=4)]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 4, "share": 0.5}

    def inject(self, on: Host) -> None:
        import torch

        from components.adapters._pema import Memory

        share = on.wire("share", torch.tensor([self.share]))
        on.around(Memory(on.width("head.in"), self.rank, self.kappa / (1 - self.kappa), share), "head")
