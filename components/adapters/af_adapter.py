"""AF Adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import VIT_WIDTH, on_vit

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class AfAdapter(AdapterPart):
    """More attention heads and MLP units in every layer of an encoder, what is there frozen (arXiv 2211.11363).

    Q, K and V get n heads of the host's width d_h, the output projection their columns; the MLP gets e units. That is
    o + W_o heads(x) + b_o and m + W_2 f(W_1 x + b_1) + b_2 for what attention, o, and the MLP, m, add. All linears are
    drawn as PyTorch does, so that the start is not the identity; `init: zero` has W_o, b_o, W_2 and b_2 zero, and is.
    The heads take no positions of their own, so that hosts which turn or bias their scores are refused.
    Parameters: layers * (3 * (d * n * d_h + n * d_h) + n * d_h * d + d + d * e + e + e * d + d).
    """

    type = "adapter.af_adapter"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("bert", "vit", "timm", "whisper", "wav2vec2", "ast")

    heads: int = Field(1, ge=0, le=1024, description="n, new heads")
    units: int = Field(1024, ge=0, le=1_000_000, description="e, new units of the MLP")
    activation: Literal["gelu", "relu", "silu", "gelu_tanh"] = Field("gelu", description="f, which should be the MLP's")
    init: Literal["default", "zero"] = Field("default", description="how the two output linears start")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        size = 32  # of a head of the tiny ViT
        attention = 3 * (VIT_WIDTH * size + size) + size * VIT_WIDTH + VIT_WIDTH
        mlp = VIT_WIDTH * 5 + 5 + 5 * VIT_WIDTH + VIT_WIDTH
        return [on_vit(cls.type, 2 * (attention + mlp), units=5, every=2)]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"units": 3}

    def inject(self, on: Host) -> None:
        from assembler.adapters.host import Borrowed
        from assembler.errors import AssemblerError
        from components.adapters._af_adapter import Beside, Keep, MoreHeads, MoreUnits

        zero = self.init == "zero"
        for layer in on.layers():
            if self.heads:
                host = layer.heads()
                if host.kv != host.query or on.anatomy.name.startswith(("llama", "gemma", "t5", "gpt2")):
                    raise AssemblerError(f"{layer.site}: new heads fit encoders with absolute positions, such as BERT")
                heads = MoreHeads(layer.width("attn.in"), self.heads, host.size, zero)
                layer.branch(heads, "attn.o.out")
                first = "attn.qkv" if layer.has("attn.qkv") else "attn.q"
                layer.around(Keep(Borrowed(heads)), first)
                layer.attend(Beside(Borrowed(heads)))
            if self.units:
                width = layer.width("mlp.in")
                layer.branch(MoreUnits(width, self.units, self.activation, zero), "mlp.down.out", ["mlp.in"])
