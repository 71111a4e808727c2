"""The bottleneck beside a sub-layer of He et al."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import LAYERS, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host


@register
class Parallel(AdapterPart):
    """s W_up f(W_down u + b1) + b2, added to what the sub-layer beside it adds: [B, T, d] (arXiv 2110.04366).

    u is what the sub-layer reads or, with `reads: stream`, the stream before its norm. W_down [m, d] is
    Kaiming-uniform, W_up [d, m] and the biases are zero, so that the start is the identity. `norms: beside` also learns
    the norms of these sub-layers, and `all` the host's final one too (as arXiv 2312.03694 does for spectrograms).
    Parameters: layers * beside * (2 * d * m + m + d), and those of the norms.
    """

    type = "adapter.parallel"

    size: int = Field(64, ge=1, le=65_536, description="m, the inner width")
    beside: list[Literal["attn", "mlp"]] = Field(["mlp"], min_length=1, description="the sub-layers")
    reads: Literal["sublayer", "stream"] = Field("sublayer", description="what u is")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="f")
    scale: float = Field(4.0, gt=0, le=1e4, description="s")
    dropout: float = Field(0.0, ge=0, lt=1, description="rate between the two matrices, in training")
    norms: Literal["none", "beside", "all"] = Field("none", description="the norms that learn too")
    init: Literal["zero", "bert"] = Field("zero", description="how the matrices are drawn; `bert` is no identity")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * 2 * (2 * WIDTH * 8 + 8 + WIDTH), size=8, beside=["attn", "mlp"]),
            on_vit(cls.type, 2 * (2 * 64 * 4 + 4 + 64), size=4, every=2, reads="stream"),
            on_vit(cls.type, 3 * (2 * 64 * 4 + 4 + 64 + 2 * 64) + 2 * 64, size=4, norms="all"),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"size": 4}

    def inject(self, on: Host) -> None:
        from components.adapters._bottleneck import Bottleneck

        def module(width: int) -> nn.Module:
            return Bottleneck(width, self.size, self.activation, self.init, self.scale, self.dropout)

        beside(on, self.beside, self.norms, module, self.reads == "stream")


def beside(on: Host, names: Sequence[str], norms: str, make: Callable[[int], nn.Module], stream: bool = False) -> None:
    """Put what `make` makes for a width beside the sub-layers `names` of each layer, and let their norms learn.

    Args:
        on: the host.
        names: `attn`, `mlp`.
        norms: `none`, `beside` for those of these sub-layers, `all` for the final one too.
        make: the module that reads what the sub-layer reads; what it gives is added to what the sub-layer adds.
        stream: read the stream before the sub-layer's norm instead.
    """
    before, norm = {"attn": "in", "mlp": "mid"}, {"attn": "norm1", "mlp": "norm2"}
    for layer in on.layers():
        for name in names:
            layer.branch(make(layer.width(f"{name}.in")), f"{name}.out", [before[name] if stream else f"{name}.in"])
            if norms != "none":
                layer.own(norm[name])
    if norms == "all" and on.has("final"):
        on.own("final")
