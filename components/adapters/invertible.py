"""The invertible adapter around the embeddings of MAD-X."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Invertible(AdapterPart):
    """y1 = e1 + F(e2), y2 = e2 + G(y1) on the stream into the first layer, e = [e1, e2]: [B, T, d] (arXiv 2005.00052).

    The inverse, e2 = y2 - G(y1), e1 = y1 - F(e2), stands before the output head where the host has one. F and G are
    d/2 -> d/2 / reduction -> d/2 with ReLU, drawn from N(0, 0.02), or with `init: zero` the identity. MAD-X stacks it
    with a `adapter.pfeiffer` of reduction 2 for a language and one of 16 for the task.
    Parameters: stacks * 2 * (2 * (d / 2) * m + m + d / 2) with m = d / 2 // reduction.
    """

    type = "adapter.invertible"
    identity: ClassVar[bool] = False

    reduction: float = Field(2.0, ge=0.01, le=65_536, description="by which F and G are narrower inside")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="inside F and G")
    init: Literal["bert", "zero"] = Field("bert", description="how F and G are drawn")
    inverse: bool = Field(True, description="undo it before the output head")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, 2 * (WIDTH * 8 + 8 + WIDTH // 2)),
            on_vit(cls.type, 2 * (64 * 8 + 8 + 32), reduction=4, init="zero"),
        ]

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._invertible import Coupling, Inverse

        for first in [layer for layer in on.layers() if layer.index == 0]:
            coupling = Coupling(first.width("in"), self.reduction, self.activation, self.init)
            first.branch(coupling, "in", replace=True)
            stack = first.site.removesuffix("layers.0")
            head = next((site for site in (f"{stack}head", "head") if on.has(site)), None)
            if self.inverse and head and on.width(f"{head}.in") == first.width("in"):
                on.branch(Inverse(Borrowed(coupling)), f"{head}.in", replace=True)
