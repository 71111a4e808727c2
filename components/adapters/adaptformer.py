"""AdaptFormer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from assembler.registry import register
from components.adapters._examples import VIT_LAYERS, VIT_WIDTH, on_vit
from components.adapters.parallel import Parallel


@register
class AdaptFormer(Parallel):
    """x' + MLP(LN x') + s W_up ReLU(W_down x'), a bottleneck beside the MLP of a vision transformer (arXiv 2205.13535).

    x' is the stream after attention, [B, T, d]. The released code reads it as it is; `reads: sublayer` reads LN x'. The
    start is the identity.
    Parameters: layers * (2 * d * m + m + d).
    """

    type = "adapter.adaptformer"

    reads: Literal["sublayer", "stream"] = Field("stream", description="x' or LN x'")
    scale: float = Field(0.1, gt=0, le=1e4, description="s")
    dropout: float = Field(0.1, ge=0, lt=1, description="rate between the two matrices, in training")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [on_vit(cls.type, VIT_LAYERS * (2 * VIT_WIDTH * 4 + 4 + VIT_WIDTH), size=4)]
