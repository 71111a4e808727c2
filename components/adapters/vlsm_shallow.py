"""VLSM-Adapter between the towers and the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import on_clipseg

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class VlsmShallow(AdapterPart):
    """h + f(W_2 f(W_1 h + b_1) + b_2) on each state h of CLIPSeg's vision tower on its way into the decoder.

    The end-of-text token of the same layers of the text tower goes through a block of its own and is added to the
    condition c, after c went through one `condition` wide inside (arXiv 2405.06196). The towers read nothing of it.
    All are drawn as PyTorch does; `outer: false` leaves out the f on the outside, which is the released code's.
    Parameters: with a(d, m) = 2 * d * m + m + d, taps * (a(d_v, m) + a(d_t, m)) + a(d_c, condition).
    """

    type = "adapter.vlsm_shallow"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ()

    size: int = Field(512, ge=1, le=65_536, description="m, the inner width")
    condition: int = Field(256, ge=1, le=65_536, description="inner width at the condition")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="f")
    outer: bool = Field(True, description="f after W_2 too")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def a(d: int, m: int) -> int:
            return 2 * d * m + m + d

        return [on_clipseg(cls.type, 6 * a(16, 4) + a(16, 6), size=4, condition=6, projection=16)]

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from assembler.errors import AssemblerError
        from components.adapters._masks import KeepMask
        from components.adapters._vlsm import Block, Condition

        def block(width: int, size: int) -> Block:
            return Block(width, size, self.activation, self.outer, zero=False)

        taps = list(getattr(on.root, "extract_layers", ()))
        width, text = on.width("text.head.out"), on.width("text.layers.0.out")
        if width != text:
            raise AssemblerError(
                f"the condition is {width} wide and the text tower {text}; it adds states of the tower"
            )
        for i in range(len(taps)):
            point = f"decoder.reduce.{i}.in"
            on.branch(block(on.width(point), self.size), point)
        blocks = [block(text, self.size) for _ in taps]
        states = [f"text.layers.{i}.out" for i in taps]
        kept, head = KeepMask(), "text.head.out"
        on.around(kept, "text")
        on.branch(Condition(block(width, self.condition), blocks, Borrowed(kept)), head, [head, *states])
