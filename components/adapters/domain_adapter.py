"""MixDA's domain adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, LAYERS, VIT_INNER, VIT_WIDTH, WIDTH, on_llama, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class DomainAdapter(AdapterPart):
    """f + U gelu(D h) for f = W2 h of an MLP: a memory of one domain beside its second matrix (arXiv 2306.05406).

    h [B, T, ff] is what W2 reads, D [m, ff] is Kaiming-uniform, U [d, m] and the biases are zero, so that it starts as
    the identity; `adapter.mixda` mixes several of them with f. The paper puts it in two layers, `layers: [7, 11]`.
    Parameters: layers * (ff * m + m + m * d + d), with m = ff // reduction.
    """

    type = "adapter.domain_adapter"

    reduction: float = Field(16.0, ge=0.01, le=65_536, description="ff / m")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [
            on_llama(cls.type, LAYERS * (INNER * 12 + 12 + 12 * WIDTH + WIDTH), reduction=4),
            on_vit(cls.type, 2 * (VIT_INNER * 12 + 12 + 12 * VIT_WIDTH + VIT_WIDTH), layers=[1, -1]),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"reduction": 4}

    def inject(self, on: Host) -> None:
        from components.adapters._mixda import Memory

        for layer in on.layers():
            inputs, outputs = layer.shape("mlp.down")
            module = Memory(inputs, max(1, int(inputs // self.reduction)), outputs)
            layer.branch(module, "mlp.down.out", ["mlp.down.in", "mlp.down.out"])
