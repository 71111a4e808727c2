"""Hyper-adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import NumberedPart
from assembler.registry import register
from components.adapters._examples import LAYERS, VIT_LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class HyperAdapter(NumberedPart):
    """x + W_up relu(W_down LN(x) + b_down) + b_up after every layer, all written by one network (arXiv 2205.10835).

    z = [source language; target language; layer], `embedding` numbers each, goes through a layer of `width` with ReLU
    and `blocks` residual ones, h + W2 relu(W1 LN(h)); a linear for each tensor then gives W_down [b, d], b_down,
    W_up [d, b], b_up and, with `norm`, gain (plus one) and shift of LN. `rescale` divides each by sqrt(width). The last
    linears are drawn so that what they write has about the deviation `std`, or that of a regular layer, 1 / sqrt(in),
    where `std` is left out. Languages are numbers, from columns, `rows: {source: COLUMN, target: COLUMN}`, or else
    the fields. `knows` says what of z is not zero: for an encoder's layers, or a decoder's, the paper leaves a language
    out. The host may learn beside it. With t = `embedding`, h = `width`, N = `languages`, L layers:
    Parameters: t * (2 * N + L) + 3 * t * h + h + blocks * (2 * (h * h + h) + 2 * h) + (h + 1) * (2 * d * b + b + d),
    and with `norm` (h + 1) * 2 * d.
    """

    type = "adapter.hyper_adapter"
    identity: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("source", "target")

    languages: int = Field(51, ge=1, le=100_000, description="N")
    source: int = Field(0, ge=0, le=99_999, description="the source language of rows that are told nothing")
    target: int = Field(0, ge=0, le=99_999, description="the target language of rows that are told nothing")
    size: int = Field(128, ge=1, le=65_536, description="b, the inner width of the bottlenecks")
    embedding: int = Field(50, ge=1, le=65_536, description="t, the width of each embedding")
    width: int = Field(612, ge=1, le=65_536, description="h, the width of the network")
    blocks: int = Field(2, ge=0, le=100, description="its residual blocks")
    norm: bool = Field(False, description="write gain and shift of the norm too")
    rescale: bool = Field(True, description="divide what is written by sqrt(width)")
    knows: list[Literal["source", "target", "layer"]] = Field(
        ["source", "target", "layer"], min_length=1, description="the parts of z that are not zero"
    )
    std: float | None = Field(0.01, gt=0, le=10, description="deviation of what is written; none is a regular layer's")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        t, h, b = 4, 6, 3

        def count(layers: int, d: int, blocks: int, norm: bool) -> int:
            network = t * (2 * 3 + layers) + 3 * t * h + h + blocks * (2 * (h * h + h) + 2 * h)
            return network + (h + 1) * (2 * d * b + b + d + norm * 2 * d)

        options: dict[str, Any] = {"languages": 3, "size": b, "embedding": t, "width": h}
        return [
            on_llama(cls.type, count(LAYERS, WIDTH, 2, False), **options),
            on_vit(cls.type, count(VIT_LAYERS, VIT_WIDTH, 1, True), blocks=1, norm=True, std=None, **options),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"languages": 1, "size": 4, "embedding": 4, "width": 6, "blocks": 1}

    def inject(self, on: Host) -> None:
        import torch

        from assembler.adapters.host import Borrowed
        from assembler.errors import AssemblerError
        from components.adapters._hyper import bottleneck_shapes
        from components.adapters._hyper_adapter import Generator, Written

        layers = on.layers()
        widths = {layer.width("out") for layer in layers}
        if len(widths) > 1:
            raise AssemblerError(
                f"the layers differ in width, {sorted(widths)}, and one network writes for all of them"
            )
        shapes = bottleneck_shapes(widths.pop(), self.size, self.norm)
        std = {name: self.std or shape[-1] ** -0.5 for name, shape in shapes.items()}
        sizes = (self.languages, len(layers), self.embedding, self.width, self.blocks)
        generator = Borrowed(on.share("generator", Generator(*sizes, shapes, std, self.rescale, self.knows)))
        languages = tuple(
            on.wire(name, torch.tensor([min(number, self.languages - 1)]))
            for name, number in (("source", self.source), ("target", self.target))
        )
        for number, layer in enumerate(layers):
            layer.branch(Written(generator, number, languages), "out")  # type: ignore[arg-type]
