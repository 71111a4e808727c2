"""MultiWay-Adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_bert, on_vit

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host, Layer
    from assembler.graph import Graph


@register
class Multiway(AdapterPart):
    """h + FFN(LN h) + s U_k relu(D_k h) for the sense k of each token, and z + E(z) on what the layer puts out, z.

    h [B, T, d] is the stream after attention. A bottleneck D_k [m, d], U_k [d, m] beside each MLP stands for one sense,
    vision or text (the New Knowledge Extractor of arXiv 2309.01516); E, `enhancer` wide inside, serves both (its
    Alignment Enhancer). Where a host reads one sense, or its towers are named `vision` and `text`, a layer has one
    bottleneck; where it reads both in one pass, the first `split` tokens are the image's. D is Kaiming-uniform, U and
    the enhancer's second linear are zero, so that the start is the identity; the released code draws the latter, as
    `init: default` does, and makes E as wide as the MLP. Where the senses have hosts of their own, `share` names the
    adapter on the other one whose enhancers this one has too, layer by layer.
    Parameters: layers * (senses * (2 * d * m + m + d) + 2 * d * e + e + d), without the last three for `enhancer: 0` or
    with `share`.
    """

    type = "adapter.multiway"
    families: ClassVar[tuple[str, ...] | None] = ("bert", "vit", "timm", "whisper", "wav2vec2", "ast")

    size: int = Field(64, ge=1, le=65_536, description="m, the extractors' inner width")
    sense: Literal["vision", "text", "both"] = Field("vision", description="what the host's tokens are")
    split: int = Field(0, ge=0, le=1_000_000, description="with `sense: both`, tokens of the image, in front")
    enhancer: int = Field(64, ge=0, le=262_144, description="e, the enhancer's inner width; 0: none")
    share: str = Field("", description="the multiway adapter of another host whose enhancers this one has too")
    scale: float = Field(0.1, gt=0, le=1e4, description="s")
    dropout: float = Field(0.1, ge=0, lt=1, description="rate before U, in training")
    init: Literal["zero", "default"] = Field("zero", description="how the enhancer's second linear starts")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        def a(d: int, m: int) -> int:
            return 2 * d * m + m + d

        both = VIT_LAYERS * (2 * a(VIT_WIDTH, 4) + a(VIT_WIDTH, 6))
        return [
            on_vit(cls.type, both, size=4, enhancer=6, sense="both", split=2),
            on_bert(cls.type, 2 * a(16, 4), size=4, enhancer=0, sense="text"),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"size": 4, "enhancer": 16, "dropout": 0.0, "scale": 1.0}

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError

        if self.sense == "both" and on.anatomy.name.startswith(("llama", "gemma", "gpt2", "t5")):
            raise AssemblerError(
                "`split` counts from the first token of a whole pass, and this host decodes word by word"
            )
        for layer in on.layers():
            layer.branch(self._extractor(layer), "mlp.out", ["mid"])
            if self.enhancer:
                layer.branch(self._enhancer(layer.width("out")), "out")

    def _enhancer(self, width: int) -> nn.Module:
        from components.adapters._bottleneck import Bottleneck
        from components.adapters._multiway import Lent

        if self.share:
            return Lent(width)
        module = Bottleneck(width, self.enhancer, "relu", "zero")
        if self.init == "default":
            module.up.reset_parameters()
        return module

    def bind(self, node: str, graph: Graph, modules: Mapping[str, nn.Module]) -> None:
        from assembler.adapters.book import adapters_of
        from assembler.adapters.host import LAYER
        from assembler.errors import AssemblerError
        from components.adapters._multiway import lend

        if not self.share:
            return
        lender = graph.adapters.get(self.share)
        if not isinstance(lender, Multiway):
            raise AssemblerError(f"`share: {self.share[:80]}` is no adapter.multiway of this spec; name one")
        found = []
        for name, host in ((self.share, lender.host), (node, self.host)):
            book = adapters_of(modules[host])
            assert book is not None
            ends = {i.at: i.module for i in book.inserts(name).values() if i.at.endswith(".out") and "mlp" not in i.at}
            layers = {LAYER.match(at): module for at, module in ends.items()}
            found.append({at[2]: module for at, module in layers.items() if at})
        lending, borrowing = found
        lend(lending, borrowing, self.share)

    def _extractor(self, layer: Layer) -> nn.Module:
        from components.adapters._bottleneck import Bottleneck
        from components.adapters._multiway import BySense

        named = layer.site.partition(".")[0]
        sense = named if named in ("vision", "text") else self.sense
        made = [
            Bottleneck(layer.width("mlp.in"), self.size, "relu", "zero", self.scale, self.dropout)
            for _ in range(2 if sense == "both" else 1)
        ]
        return BySense(made[0], made[1], self.split) if len(made) == 2 else made[0]
