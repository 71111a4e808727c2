"""GLoRA: weight and bias scaled and shifted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, KV_HEADS, LAYERS, TIMM_LAYERS, WIDTH, on_llama, on_timm

if TYPE_CHECKING:
    from assembler.adapters.host import Host

Matrix = Literal["low_rank", "vector", "scalar", "none"]
Column = Literal["low_rank", "vector", "none"]
Shift = Literal["vector", "scalar", "none"]


@register
class Glora(AdapterPart):
    """(W + W * A + B) x + b + b * D + E + W C, with * element by element, on every linear (arXiv 2306.07967).

    A and B are low rank [out, r] [r, in], a vector [out, 1], a scalar or absent; C is low rank [in, r] [r, 1], a vector
    or absent; D and E are a vector [out], a scalar or absent. C, D and E change a bias and are only where there is one.
    All start at zero (the second factor of a low-rank tensor by Xavier), so that the start is the identity; the whole
    folds into W and b. `supernet` holds the largest of each, whose beginnings are the smaller ones, and every layer
    draws one of the 432 paths in each forward of training; `components.adapters._glora.Search` then finds the path of
    each layer, which `paths` takes by site as [A, B, C, D, E].
    Parameters: sum over the sites of A and B: r * (in + out), out, 1 or 0 each; C: r * (in + 1), in or 0; D and E: out,
    1 or 0 each.
    """

    type = "adapter.glora"
    trait = "whole"
    mergeable = True

    sites: str = Field("layers.*", description="pattern over the host's canonical sites: linears, or what holds them")
    rank: int = Field(4, ge=1, le=4096, description="r, the inner width of low-rank tensors")
    a: Matrix = Field("low_rank", description="what scales the weight")
    b: Matrix = Field("low_rank", description="what shifts the weight")
    c: Column = Field("low_rank", description="what goes through the weight into the bias")
    d: Shift = Field("vector", description="what scales the bias")
    e: Shift = Field("vector", description="what shifts the bias")
    paths: dict[str, tuple[Matrix, Matrix, Column, Shift, Shift]] = Field(
        {}, description="site -> [A, B, C, D, E] where they differ"
    )
    supernet: bool = Field(False, description="hold every path, and draw one in each forward of training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        low = 2 * 4 * (2 * (WIDTH + WIDTH) + 2 * (WIDTH + KV_HEADS * 8) + 3 * (WIDTH + INNER))
        shapes = [(64, 192), (64, 64), (64, 192), (192, 64)]
        held = TIMM_LAYERS * sum(2 * 2 * (i + o) + 2 * (i + 1) + 2 * o for i, o in shapes)
        path = ["vector", "scalar", "none", "scalar", "none"]
        q = "layers.*.attn.q"
        return [
            on_llama(cls.type, LAYERS * low),
            on_llama(
                cls.type, WIDTH + 1 + WIDTH + WIDTH, sites=q, a="vector", b="vector", paths={"layers.1.attn.q": path}
            ),
            on_timm(cls.type, held, rank=2),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2, "d": "none"}  # the tiny hosts' biases are zero, so that D would learn nothing

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._glora import Glora, Path

        sites = on.linears(self.sites)
        unknown = next((site for site in self.paths if site not in sites), None)
        if unknown is not None:
            raise AssemblerError(f"paths: {unknown} is none of the sites that are adapted, such as {sites[0]}")
        plain = (self.a, self.b, self.c, self.d, self.e)
        for site in sites:
            inputs, outputs = on.shape(site)
            bias = getattr(on.module(site), "bias", None) is not None
            path = Path(*self.paths.get(site, plain))
            on.weight(Glora((outputs, inputs), bias, self.rank, path, self.supernet), site)
