"""Compacter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class Compacter(AdapterPart):
    """h + W_up f(W_down h + b1) + b2 where both matrices are sum_i A_i (x) (s_i t_i^T): n Kronecker products each.

    (arXiv 2106.04647.) The rules A_i [n, n] are shared by all layers, s_i and t_i are of each one: s_i [in / n, rank]
    and t_i [rank, out / n]. It stands where Houlsby's adapters do, or after the MLP alone with `after: [mlp]`
    (Compacter++). The rules are drawn from N(0, 1e-4), so that the start is near the identity; the factors are
    Glorot's.
    Parameters: layers * after * (2 * rank + 1) * (d + m) + n^3 with m = d // reduction.
    """

    type = "adapter.compacter"
    identity: ClassVar[bool] = False

    reduction: float = Field(32.0, ge=0.01, le=65_536, description="d / m")
    n: int = Field(4, ge=1, le=1024, description="number of Kronecker products, and the size of the rules")
    rank: int = Field(1, ge=1, le=4096, description="rank of what the rules are multiplied by")
    after: list[Literal["attn", "mlp"]] = Field(["attn", "mlp"], min_length=1, description="the sub-layers")
    activation: Literal["gelu", "relu", "silu", "tanh"] = Field("gelu", description="f")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * 2 * 3 * (WIDTH + 8) + 64, reduction=4),
            on_vit(cls.type, 2 * 5 * (64 + 8) + 8, reduction=8, n=2, rank=2, layers=[-1]),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"reduction": 4, "n": 2}

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._compacter import Kronecker, Rules

        rules = Borrowed(on.share("rules", Rules(self.n)))
        for layer in on.layers():
            for name in self.after:
                width = layer.width(f"{name}.out")
                inner = max(1, int(width // self.reduction))
                if width % self.n or inner % self.n:
                    raise AssemblerError(f"n = {self.n} does not divide the widths {width} and {inner}; choose another")
                layer.branch(Kronecker(rules, width, inner, self.n, self.rank, self.activation), f"{name}.out")
