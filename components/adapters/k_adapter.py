"""K-Adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_WIDTH, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class KAdapter(AdapterPart):
    """W [H; h_K] + b for the host's last states H [B, T, d]: knowledge from a side network, which the host never sees.

    For each tap k a state x_k of the host is read: u = x_k + h_{k-1}, z = layers(down(u)), h_k = u + up(z), from
    h_0 = 0 (arXiv 2002.01808). down [h, d] and up [d, h] are drawn from N(0, 2e-4); `depth` post-norm transformer
    layers are `size` h wide. State i is what layer i reads. W [d, 2 d] is the paper's, from concatenation back to d;
    `join: add` gives H + W h_K instead, with W [d, d] and b zero, so that the start is the identity. Several of them
    under `average` do not see each other. They are pre-trained alone, one for each kind of knowledge.
    Parameters: taps * (d * h + h + depth * (4 * (h * h + h) + 4 * h + 2 * h * f + f + h) + h * d + d)
    + 2 * d * d + d, with `join: add` d * d + d.
    """

    type = "adapter.k_adapter"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("bert", "vit", "timm")

    taps: list[int] = Field([0, 11, 23], min_length=1, max_length=1000, description="states that are read, in order")
    size: int = Field(768, ge=1, le=65_536, description="h, the side network's width")
    inner: int = Field(3072, ge=1, le=262_144, description="f, inside its MLPs")
    heads: int = Field(12, ge=1, le=256, description="of its attention")
    depth: int = Field(2, ge=1, le=64, description="its layers at each tap")
    join: Literal["concat", "add"] = Field("concat", description="how its end meets the host's")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        h, f, d = 8, 12, VIT_WIDTH
        tap = d * h + h + 4 * (h * h + h) + 4 * h + 2 * h * f + f + h + h * d + d
        options: dict[str, Any] = {"size": h, "inner": f, "heads": 2, "depth": 1}
        return [
            on_vit(cls.type, 2 * tap + 2 * d * d + d, taps=[0, 2], **options),
            on_vit(cls.type, tap + d * d + d, taps=[2], join="add", **options),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"taps": [0, 1], "size": 8, "inner": 12, "heads": 2, "depth": 1}

    @model_validator(mode="after")
    def _divides(self) -> KAdapter:
        if self.size % self.heads:
            raise ValueError(f"`size` {self.size} is no multiple of the {self.heads} `heads`")
        return self

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._k_adapter import Side
        from components.adapters._masks import keep_mask

        first = on.layers()[0]
        stack = first.site.rpartition(".")[0]
        end = "final.out" if on.has("final") else f"{stack}.{first.depth - 1}.out"
        sizes = (self.size, self.inner, self.heads, self.depth)
        side = Side(on.width(end), *sizes, len(self.taps), self.join == "concat", Borrowed(keep_mask(on)))
        on.branch(side, end, [end, *(f"{stack}.{i}.in" for i in self.taps)])
