"""InRa, the inference-time half of flexible realignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, KV_HEADS, WIDTH, on_llama

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class InRa(AdapterPart):
    """z = (1 - lam) LM(x) + lam LM'(x), where LM' has one more layer before its first (arXiv 2506.12704).

    The layer is a copy of the host's first one, whose output projections of attention and MLP are zero: both branches
    add zero, so that it starts as the identity. It alone is trained, by the LM's own loss on the behaviour that is
    wanted, with lam 1. When the model serves, lam from 0 to 1 interpolates between the logits of both streams, and
    beyond extrapolates; each stream has its own cache.
    Parameters: those of one layer of the host.
    """

    type = "adapter.inra"
    trait = "whole"
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2")
    exports = "it runs its host twice for each token, and the graphs of a bundle run it once"

    lam: float = Field(1.0, ge=-100, le=100, description="0 is the host, 1 the host with the layer")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        attention = 2 * WIDTH * WIDTH + 2 * WIDTH * KV_HEADS * 8
        return [on_llama(cls.type, attention + 3 * WIDTH * INNER + 2 * WIDTH)]

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._inra import Inserted, TwoStreams

        stacks = {layer.site: layer for layer in on.layers() if layer.index == 0}
        if len(stacks) != 1:
            raise AssemblerError("one layer goes before the first of one stack; name a decoder with `layers: [0]`")
        (layer,) = stacks.values()
        path = on.place(layer.site).path
        outputs = [on.place(f"{layer.site}.{name}").path.removeprefix(f"{path}.") for name in ("attn.o", "mlp.down")]
        inserted = Inserted(layer.module(""), outputs)
        layer.around(inserted)
        on.around(TwoStreams(inserted, self.lam), "")
