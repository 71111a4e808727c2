"""FlexiDepth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import WIDTH, on_llama

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class FlexiDepth(AdapterPart):
    """x + m g (layer(x) - x) + (1 - m)(1 - g) MLP(norm2(x)): each token takes a layer or passes it (arXiv 2503.23798).

    g = sigmoid(w . W_up RMSNorm(tanh(W_down norm1(x)))) for each token and m = g > `threshold`; the MLP has the form of
    the host's with an inner width ff / `reduce`, and the norms are the host's own. Keys and values are computed for all
    tokens. The form is dense: exact, and it saves no time. Training adds penalty * mean_t (sum_l g_l)^2, in which
    padding counts. By default the later half of the layers; the start is not the identity. The square in the loss, the
    router's form and the widths' defaults are recalled, not read.
    Parameters: layers * (2 * d * r + r + d + 3 * d * ff'), r = d / 16 and ff' = ff / 16 (without a gate 2 * d * ff').
    """

    type = "adapter.flexidepth"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2")

    reduce: int = Field(16, ge=1, le=4096, description="how much narrower the router and the small MLP are")
    threshold: float = Field(0.5, ge=0, le=1, description="the gate above which a token takes the layer")
    penalty: float = Field(1e-4, ge=0, le=100, description="weight of the squared number of layers taken")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [on_llama(cls.type, 2 * WIDTH * 8 + 8 + WIDTH + 3 * WIDTH * 12, reduce=4)]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"reduce": 4, "layers": [0, 1], "penalty": 0.01}

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._flexidepth import FlexibleLayer, Gates, Router, Shortcut

        layers = [layer for layer in on.layers() if self.layers is not None or layer.index >= layer.depth // 2]
        gates = Gates(len(layers))
        for layer in layers:
            mlp = layer.module("mlp") if layer.has("mlp") else None
            act = next((getattr(mlp, name) for name in ("act_fn", "act") if hasattr(mlp, name)), None)
            if act is None:
                raise AssemblerError(f"{layer.site} has no MLP whose activation is known, such as Llama's or GPT-2's")
            width, inner = layer.width("in"), layer.width("mlp.down.in")
            router = Router(width, max(1, width // self.reduce))
            shortcut = Shortcut(width, max(1, inner // self.reduce), act, layer.has("mlp.gate"))
            norms = layer.borrow("norm1"), layer.borrow("norm2")
            layer.around(FlexibleLayer(router, shortcut, norms, self.threshold, self.penalty, gates))
