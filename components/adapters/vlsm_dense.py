"""VLSM-Adapter in the layers of both towers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import on_clipseg

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class VlsmDense(AdapterPart):
    """h + f(W_2 f(W_1 h + b_1) + b_2) on what attention and the MLP add, in the `first` layers of CLIPSeg's two towers.

    The same block, `condition` wide inside, on the projected end-of-text token (arXiv 2405.06196); all are drawn as
    PyTorch does, and `init: zero` starts W_2 and b_2 at zero, so that the start is the identity. The f on the outside
    is the released code's; `outer: false` leaves it out.
    Parameters: with a(d, m) = 2 * d * m + m + d, 2 * first * (a(d_v, m) + a(d_t, m)) + a(d_c, condition).
    """

    type = "adapter.vlsm_dense"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ()

    size: int = Field(64, ge=1, le=65_536, description="m, the inner width")
    condition: int = Field(256, ge=1, le=65_536, description="inner width at the condition")
    first: int = Field(9, ge=1, le=1000, description="layers of each tower, where `layers` names none")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="f")
    outer: bool = Field(True, description="f after W_2 too")
    init: Literal["default", "zero"] = Field("default", description="how W_2 and b_2 start")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def a(d: int, m: int) -> int:
            return 2 * d * m + m + d

        return [
            on_clipseg(cls.type, 8 * a(16, 4) + a(12, 6), size=4, condition=6, first=2),
            on_clipseg(cls.type, 4 * a(16, 4) + a(12, 6), size=4, condition=6, layers=[0], init="zero", outer=False),
        ]

    def inject(self, on: Host) -> None:
        from components.adapters._vlsm import Block

        def block(width: int, size: int) -> Block:
            return Block(width, size, self.activation, self.outer, self.init == "zero")

        for layer in on.layers():
            if self.layers is None and layer.index >= self.first:
                continue
            for point in ("attn.out", "mlp.out"):
                layer.branch(block(layer.width(point), self.size), point)
        on.branch(block(on.width("text.head.out"), self.condition), "text.head.out")
