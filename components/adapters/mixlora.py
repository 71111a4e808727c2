"""MixLoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from assembler.part import AdapterPart
from assembler.registry import register
from components.adapters._examples import INNER, KV_HEADS, LAYERS, WIDTH, on_llama

if TYPE_CHECKING:
    from assembler.adapters.host import Host


@register
class MixLora(AdapterPart):
    """sum_i p_i FFN_i(x) over `experts` copies of the frozen gated MLP that differ by LoRA (arXiv 2404.15159).

    FFN_i has W + (alpha / r) B_i A_i for gate, up and down. p = softmax(G x) with G [E, d] from N(0, 0.02), of which
    the `top_k` largest are kept, or the fewest that reach `top_p`, and renormalised. `attention` names the projections
    of attention that get a plain LoRA. B is zero and the p_i sum to one, so that the start is the host up to rounding.
    Training adds balance * E sum_i f_i P_i (f_i: share of tokens at expert i, P_i: its mean probability) and
    z_loss * mean(logsumexp(G x)^2); padding counts as tokens. With `dora` all of them are DoRAs (MixDoRA). Routing as
    in Switch is `top_k: 1`, `normalise: false`, and a `capacity` of the experts.
    Parameters: layers * (E * r * 3 * (d + ff) + E * d + r * sum over `attention` of (in + out)), and with `dora`
    layers * (E * (2 * ff + d) + sum over `attention` of out).
    """

    type = "adapter.mixlora"
    trait = "whole"
    identity: ClassVar[bool] = False
    families: ClassVar[tuple[str, ...] | None] = ("llama",)

    experts: int = Field(8, ge=2, le=1024, description="E")
    top_k: int = Field(2, ge=1, le=1024, description="experts a token goes to")
    top_p: float | None = Field(None, gt=0, le=1, description="instead, the fewest whose probabilities reach this")
    rank: int = Field(16, ge=1, le=4096, description="r")
    alpha: float = Field(32.0, gt=0, le=1e6, description="the updates are scaled by alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="rate on the inputs of A, in training")
    attention: str = Field("q,k,v,o", pattern=r"^([qkvo](,[qkvo])*)?$", description="projections with a plain LoRA")
    dora: bool = Field(False, description="learn the norm of every row of the experts' weights apart")
    normalise: bool = Field(True, description="let the weights of the chosen experts sum to one")
    capacity: float | None = Field(
        None, gt=0, le=1000, description="tokens an expert takes, in even shares; all if none"
    )
    balance: float = Field(1e-3, ge=0, le=100, description="weight of the load balancing loss")
    z_loss: float = Field(0.0, ge=0, le=100, description="weight of the loss on the router's scores")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        moe = 3 * 2 * 3 * (WIDTH + INNER) + 3 * WIDTH
        attention = 2 * (2 * (WIDTH + WIDTH) + 2 * (WIDTH + KV_HEADS * 8))
        return [
            on_llama(cls.type, LAYERS * (moe + attention), experts=3, rank=2),
            on_llama(cls.type, LAYERS * moe, experts=3, rank=2, attention="", top_p=0.6, z_loss=0.01),
            on_llama(cls.type, LAYERS * (moe + 3 * (2 * INNER + WIDTH)), experts=3, rank=2, attention="", dora=True),
        ]

    @classmethod
    def small(cls) -> dict[str, Any]:
        return {"experts": 3, "rank": 2, "dropout": 0.0, "alpha": 4.0}

    @model_validator(mode="after")
    def _enough(self) -> MixLora:
        if self.top_k > self.experts:
            raise ValueError(f"`top_k` {self.top_k} is more than the {self.experts} `experts`")
        return self

    def inject(self, on: Host) -> None:
        from assembler.errors import AssemblerError
        from components.adapters._lora import Weight, put_low_rank
        from components.adapters._mixlora import Experts, Router
        from components.adapters._mixlora import MixLora as Module

        scale = self.alpha / self.rank
        for layer in on.layers():
            act = getattr(layer.module("mlp"), "act_fn", None) if layer.has("mlp.gate") else None
            if act is None:
                raise AssemblerError(f"{layer.site} has no gated MLP, such as Llama's, and MixLoRA's experts are that")
            names = ("gate", "up", "down")
            experts = {
                name: Experts(
                    self.experts,
                    *layer.shape(f"mlp.{name}"),
                    self.rank,
                    Weight(on, layer.name(f"mlp.{name}")) if self.dora else None,
                )
                for name in names
            }
            host = {name: layer.borrow(f"mlp.{name}") for name in names}
            router = Router(layer.width("mlp.in"), self.experts, self.top_k, self.top_p, self.normalise, self.capacity)
            losses = (self.balance, self.z_loss)
            layer.around(Module(host, act, router, experts, scale, self.dropout, losses), "mlp")
        if self.attention:
            sites = f"layers.*.attn.{{{self.attention}}}"
            put_low_rank(on, sites, self.rank, self.alpha, self.dropout, rslora=False, dora=self.dora, init="kaiming")
