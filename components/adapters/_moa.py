"""MoA: adapters of several kinds in one layer, each with a gate for every token from the layer's router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.attention import Attend
from assembler.adapters.host import Borrowed, Heads
from components.adapters._llama_adapter import Prompts
from components.adapters._lora import LowRank, Weight


class Router(nn.Module):
    """sigmoid(W2 (silu(W1 x) * W3 x)) for T experts, or of one linear with `factor` 0: [B, T, d] -> [B, T, experts].

    With a threshold, gates below most * sigmoid(w x + b) are zero. That step has no gradient, so that the threshold
    learns by the gradient of a sigmoid of slope 1 / `softness` in its place.

    Attributes:
        now: the gates of the layer's last run, from which its experts may be computed anew in the backward.
    """

    softness = 0.1

    def __init__(self, width: int, experts: int, factor: int, most: float | None) -> None:
        super().__init__()
        inner = factor * experts
        linears = [nn.Linear(width, inner), nn.Linear(width, inner)] if inner else []
        self.inputs = nn.ModuleList(linears)
        self.output = nn.Linear(inner or width, experts)
        self.threshold = None if most is None else nn.Linear(width, 1)
        self.most = most
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                nn.init.zeros_(linear.bias)
        self.now: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "now": None}  # a copy of the router starts without gates

    def forward(self, x: Tensor) -> Tensor:
        inner = F.silu(self.inputs[0](x)) * self.inputs[1](x) if len(self.inputs) else x
        gates = self.output(inner).sigmoid()
        if self.threshold is None or self.most is None:
            return gates
        over = gates - self.most * self.threshold(x).sigmoid()  # [B, T, experts]
        soft = (over / self.softness).sigmoid()
        return gates * ((over >= 0).to(gates.dtype) + (soft - soft.detach()))


class Routed(nn.Module):
    """Lets the router read what a layer reads before the layer runs."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.router = router

    def forward(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.router.now = self.router(args[0] if args else kwargs["hidden_states"])
        return call(*args, **kwargs)


class Gate:
    """The gate of one expert: [B, T, 1]."""

    def __init__(self, router: Borrowed, expert: int) -> None:
        self.router, self.expert = router, expert

    def __call__(self) -> Tensor:
        gates: Any = self.router.module.now
        return gates[..., self.expert : self.expert + 1]


class GatedLora(LowRank):
    """g s B A x."""

    def __init__(self, gate: Gate, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.gate()


class GatedParallel(nn.Module):
    """g U silu(D x), both matrices by Xavier with a gain of 1e-4."""

    def __init__(self, gate: Gate, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.up, self.gate = nn.Linear(width, inner), nn.Linear(inner, width), gate
        for linear in (self.down, self.up):
            nn.init.xavier_uniform_(linear.weight, gain=1e-4)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.silu(self.down(x))) * self.gate()


class Frozen:
    """W x + b with the host's own weight, past what adapters make of the layer."""

    def __init__(self, weight: Weight) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.weight())


class GatedPrompts(Prompts):
    """g times a gate for each head, from zero, times attention to W_k P and W_v P, added to the layer's attention."""

    def __init__(self, gate: Gate, heads: Heads, width: int, length: int, projections: tuple[Frozen, Frozen]):
        super().__init__(heads, width, length, heads.query, False, projections, None)  # type: ignore[arg-type]
        nn.init.normal_(self.prompts, std=0.02)
        self.token_gate = gate

    def beside(self, attend: Attend, q: Tensor, k: Tensor) -> Tensor:
        """[B, H, T, d]."""
        return super().beside(attend, q, k) * self.token_gate().unsqueeze(1)
