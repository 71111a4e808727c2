"""Visual tokens in every layer of an LM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import HEADS, LAYERS, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class LayerwiseVisual(AdapterPart):
    """tanh(g) * softmax(q (W_k P)^T / sqrt(d_h)) W_v P + the layer's own attention; P = W attention(Q, s) of an image.

    Q [length, d_s] are learned queries of each layer, drawn from N(0, 1), which gather from the tokens s [B, S, d_s]
    of the node wired to `image`; W [d, d_s] brings them to the LM. W_k and W_v are the host's own, frozen. The gates g,
    one a head, start at zero, so that the start is the identity. PumGPT (arXiv 2308.09568) fixes few visual tokens a
    layer and an adapter for each; attention by queries and gates are this part's own choice.
    Parameters: layers * (length * d_s + 4 * d_s * d_s + d_s * d + heads).
    """

    type = "adapter.layerwise_visual"
    trait = "whole"
    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"image": ("tokens",)}
    families: ClassVar[tuple[str, ...] | None] = ()

    length: int = Field(8, ge=1, le=10_000, description="visual tokens a layer")
    heads: int = Field(8, ge=1, le=256, description="of the attention to the image, whose width they divide")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        tree, _ = on_llama(cls.type, None, length=3, heads=4)
        vit, _ = on_vit("", None)
        nodes, edges = {**tree["nodes"], **vit["nodes"]}, [*vit["edges"], "eyes -> part.image"]
        each = 3 * VIT_WIDTH + 4 * VIT_WIDTH * VIT_WIDTH + VIT_WIDTH * WIDTH + HEADS
        return [({**tree, "nodes": nodes, "edges": edges}, LAYERS * each)]

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._llama_adapter import Resampled

        wire = on.wire("image")
        source = on.inputs["image"].size("width")
        if source % self.heads:
            raise AssemblerError(
                f"the image's tokens are {source} wide, and `heads` is {self.heads}; it must divide that"
            )
        for layer in on.layers():
            projections = layer.borrow("attn.k"), layer.borrow("attn.v")
            sizes = layer.heads(), layer.width("attn.in"), self.length
            layer.attend(Resampled(*sizes, True, projections, wire, source, self.heads))
