"""MoSA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.registry import register
from components.adapters._examples import LAYERS, VIT_LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit
from components.adapters._wrapped import WrappingPart

if TYPE_CHECKING:
    from assembler.adapters.host import Host

ADAPTFORMER = {"type": "adapter.adaptformer", "size": 64}


@register
class Mosa(WrappingPart):
    """Another adapter whose matrices learn in `parts` disjoint random parts, one in each training forward.

    Each part of a matrix learns as if the rest of it were at its start W0, each matrix drawing by itself
    (arXiv 2312.02923). Then they make one adapter of the plain one's size: `merge_by: copy` takes from each part what
    it has learned; `average` adds the copies and divides by their number, W0 + (W - W0) / parts, as the released code
    does. `split: up` divides the second matrix alone, the released scripts' way. A stage with `consistency: 1.0` runs
    every batch twice, each with its own draw, and adds the symmetric KL divergence of the two predictions.
    Parameters: those of the adapter inside.
    """

    type = "adapter.mosa"

    adapter: dict[str, Any] = Field(ADAPTFORMER, description="`type` and options of the one inside")
    parts: int = Field(4, ge=2, le=256, description="E")
    split: Literal["up", "both"] = Field("up", description="the second matrix, or both")
    merge_by: Literal["copy", "average"] = Field("copy", description="what it computes once it is trained")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        adaptformer = {**ADAPTFORMER, "size": 4}
        houlsby = {"type": "adapter.houlsby", "size": 4, "norms": False, "init": "zero"}
        return [
            on_vit(cls.type, VIT_LAYERS * (2 * VIT_WIDTH * 4 + 4 + VIT_WIDTH), adapter=adaptformer),
            on_llama(cls.type, LAYERS * 2 * (2 * WIDTH * 4 + 4 + WIDTH), adapter=houlsby, split="both", parts=2),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"adapter": {**ADAPTFORMER, "size": 4, "dropout": 0.0}, "split": "both"}

    def over(self, on: Host) -> None:
        from torch.nn.utils.parametrize import register_parametrization

        from components.adapters._mosa import Parts
        from components.adapters._wrapped import matrices

        seen: dict[int, int] = {}
        for module, owner, name in matrices(on):
            seen[id(module)] = seen.get(id(module), 0) + 1
            if self.split == "both" or seen[id(module)] == 2:
                parts = Parts(owner.get_parameter(name), self.parts, self.merge_by == "average")
                register_parametrization(owner, name, parts, unsafe=True)
