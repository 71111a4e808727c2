"""MoA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import HEADS, INNER, KV_HEADS, LAYERS, VIT_INNER, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host, Layer

LORAS = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.down")


@register
class Moa(AdapterPart):
    """LoRAs, a parallel bottleneck and a prompt in every layer, each times its gate for the token (arXiv 2506.05928).

    The gates are g = sigmoid(W2 (silu(W1 x) * W3 x)) of the layer's input x, with `factor` * T inside for T experts, or
    of one linear with `factor: 0`; they do not compete. The experts are g s B A x on q, k, v, o and down;
    g U silu(D u) beside the MLP, which reads u; and attention to `prompts` vectors through the layer's own W_k and W_v
    under a gate for each head from zero. `sparse` has no prompt, and drops what is below `most` * sigmoid(w x + b) of
    the token; that threshold learns through a sigmoid in place of the step. B is zero, and U and D are Xavier times
    1e-4, so that the start is near the identity. There is no balancing loss.
    Parameters: layers * (sum over the LoRAs of r * (in + out) + 2 * d * m + m + d + P * d + heads + router), the router
    2 * (d * h + h) + h * T + T with h = factor * T, or d * T + T; `sparse`: without P * d + heads, with d + 1.
    """

    type = "adapter.moa"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("llama", "gpt2", "bert", "vit")

    rank: int = Field(8, ge=1, le=4096, description="r, of the LoRAs")
    alpha: float = Field(8.0, gt=0, le=1e6, description="the LoRAs are scaled by alpha / r")
    size: int = Field(16, ge=1, le=65_536, description="m, of the bottleneck")
    prompts: int = Field(10, ge=1, le=10_000, description="P, vectors of the prompt")
    factor: int = Field(4, ge=0, le=1000, description="the router's inner width over the number of experts")
    sparse: bool = Field(False, description="drop experts whose gate is below the token's threshold")
    most: float = Field(0.5, ge=0, le=1, description="of the threshold")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        kv = KV_HEADS * 8
        loras = 2 * (2 * (WIDTH + WIDTH) + 2 * (WIDTH + kv) + INNER + WIDTH)
        beside = 2 * WIDTH * 4 + 4 + WIDTH
        router = 2 * (WIDTH * 14 + 14) + 14 * 7 + 7
        vit = 2 * (4 * 2 * VIT_WIDTH + VIT_INNER + VIT_WIDTH) + 2 * VIT_WIDTH * 4 + 4 + VIT_WIDTH
        small: dict[str, Any] = {"rank": 2, "size": 4}
        return [
            on_llama(cls.type, LAYERS * (loras + beside + 3 * WIDTH + HEADS + router), factor=2, prompts=3, **small),
            on_vit(cls.type, vit + VIT_WIDTH * 6 + 6 + VIT_WIDTH + 1, factor=0, sparse=True, layers=[-1], **small),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"rank": 2, "size": 4, "prompts": 2, "factor": 1}

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from components.adapters._moa import Gate, Routed, Router

        experts = len(LORAS) + 1 + (not self.sparse)
        for layer in on.layers():
            router = Router(layer.width("in"), experts, self.factor, self.most if self.sparse else None)
            layer.around(Routed(router))
            self._experts(layer, [Gate(Borrowed(router), expert) for expert in range(experts)])

    def _experts(self, layer: Layer, gates: list[Any]) -> None:
        from components.adapters._lora import Weight
        from components.adapters._moa import Frozen, GatedLora, GatedParallel, GatedPrompts

        for site, gate in zip(LORAS, gates, strict=False):
            module = GatedLora(gate, *layer.shape(site), self.rank, self.alpha / self.rank)
            layer.branch(module, f"{site}.out", [f"{site}.in"])
        width = layer.width("mlp.in")
        layer.branch(GatedParallel(gates[len(LORAS)], width, self.size), "mlp.out", ["mlp.in"])
        if not self.sparse:
            keys, values = (Frozen(Weight(layer.on, layer.name(site))) for site in ("attn.k", "attn.v"))
            width = layer.width("attn.in")
            layer.attend(GatedPrompts(gates[-1], layer.heads(), width, self.prompts, (keys, values)))
