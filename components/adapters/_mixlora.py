"""MixLoRA's MLP: low-rank experts on one frozen gated MLP, and the router that chooses among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from components.adapters._lora import Weight


class Router(nn.Module):
    """p = softmax(G x), then the `top_k` largest, or the fewest that reach `top_p`, renormalised; the rest is zero.

    Without `normalise` p stays as it is. With a `capacity` an expert takes no more tokens than that times its even
    share, the first ones, and the others get nothing from it.
    """

    def __init__(
        self,
        width: int,
        experts: int,
        top_k: int,
        top_p: float | None,
        normalise: bool = True,
        capacity: float | None = None,
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(width, experts, bias=False)
        nn.init.normal_(self.gate.weight, std=0.02)
        self.top_k, self.top_p, self.normalise, self.capacity = top_k, top_p, normalise, capacity

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[..., d] -> weights, which experts are chosen, and the scores before softmax, each [..., E]."""
        scores = self.gate(x).float()
        chances = scores.softmax(-1)
        ranked, order = chances.sort(-1, descending=True)
        if self.top_p is None:
            kept = torch.arange(chances.shape[-1], device=x.device).expand_as(order) < self.top_k
        else:
            kept = ranked.cumsum(-1) - ranked < self.top_p
        chosen = torch.zeros_like(kept).scatter(-1, order, kept)
        weights = chances * chosen
        if self.normalise:
            weights = weights / weights.sum(-1, keepdim=True)
        if self.capacity is not None:
            flat = chosen.flatten(0, -2)  # [N, E]
            most = self.capacity * self.top_k * flat.shape[0] / flat.shape[1]
            weights = weights * (flat.cumsum(0) <= most).view_as(weights)
        return weights.to(x.dtype), chosen, scores


def balance(chosen: Tensor, scores: Tensor) -> Tensor:
    """E sum_i f_i P_i, for the share f_i of tokens that go to expert i and its mean probability P_i."""
    chances = scores.softmax(-1).flatten(0, -2)  # [N, E]
    share = chosen.flatten(0, -2).to(chances.dtype).mean(0)  # [E]
    return chances.shape[-1] * (share * chances.mean(0)).sum()


class Experts(nn.Module):
    """The low-rank halves of all experts at one projection: A [E, r, in], drawn as LoRA's, and B [E, out, r], zero.

    With the host's `weight` they are DoRAs', and m [E, out], the norm of each output's row, learns too.
    """

    def __init__(self, experts: int, inputs: int, outputs: int, rank: int, weight: Weight | None = None) -> None:
        super().__init__()
        self.weight = weight
        if weight is not None:
            norms = torch.linalg.norm(weight()[0], dim=1)
            self.magnitude = nn.Parameter(norms.detach().expand(experts, -1).clone())
        self.a = nn.Parameter(torch.empty(experts, rank, inputs))
        self.b = nn.Parameter(torch.zeros(experts, outputs, rank))
        nn.init.uniform_(self.a, -(inputs**-0.5), inputs**-0.5)

    def down(self, x: Tensor) -> Tensor:
        """A_i x for one x [B, T, in], or for each expert's own [B, T, E, in]: [B, T, E, r]."""
        return torch.einsum("btd,erd->bter" if x.dim() == 3 else "bted,erd->bter", x, self.a)

    def gain(self, scale: float) -> Tensor | None:
        """m / |W + s B A| for each expert and output, [E, out], whose norm takes no gradient; None where it is LoRA."""
        if self.weight is None:
            return None
        weight, b, a = self.weight()[0].detach(), self.b.detach() * scale, self.a.detach()
        across = torch.einsum("eor,eri,oi->eo", b, a, weight)
        own = torch.einsum("eor,eri,eqi,eoq->eo", b, a, a, b)
        return self.magnitude / (weight.pow(2).sum(1) + 2 * across + own).sqrt()

    def up(self, inner: Tensor) -> Tensor:
        """B_i of each: [B, T, E, r] -> [B, T, E, out]."""
        return torch.einsum("bter,eor->bteo", inner, self.b)


class MixLora(nn.Module):
    """sum_i p_i W_d^i (f(W_g^i x) * W_u^i x), where W^i = W + s B_i A_i for each of the three projections.

    W_g x and W_u x are computed once for all experts. So is W_d: sum_i p_i W_d h_i = W_d sum_i p_i h_i, unless the
    experts are DoRAs.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(
        self,
        host: dict[str, Borrowed],
        act: Callable[[Tensor], Tensor],
        router: Router,
        experts: dict[str, Experts],
        scale: float,
        dropout: float,
        losses: tuple[float, float],
    ) -> None:
        super().__init__()
        self.host, self.act, self.scale = host, act, scale
        self.router, self.experts = router, nn.ModuleDict({f"{name}_low": one for name, one in experts.items()})
        self.dropout = nn.Dropout(dropout)
        self.balance, self.z_loss = losses

    def forward(self, call: Any, x: Tensor) -> Tensor:
        weights, chosen, scores = self.router(x)  # [B, T, E]
        if self.training:
            self.auxiliary_loss = self.balance * balance(chosen, scores)
            if self.z_loss:
                self.auxiliary_loss = self.auxiliary_loss + self.z_loss * scores.logsumexp(-1).pow(2).mean()
        dropped = self.dropout(x)
        gate, up = (self._projected(name, x, dropped) for name in ("gate", "up"))  # [B, T, E, ff]
        inner = self.act(gate) * up
        low: Any = self.experts["down_low"]
        if low.weight is not None:
            each = self._projected("down", inner, self.dropout(inner))  # [B, T, E, d]
            return torch.einsum("bte,bted->btd", weights, each)
        mixed = torch.einsum("bte,btef->btf", weights, inner)
        change = torch.einsum("bter,eor->bto", low.down(self.dropout(inner)) * weights.unsqueeze(-1), low.b)
        return self.host["down"](mixed) + self.scale * change  # [B, T, d]

    def _projected(self, name: str, x: Tensor, dropped: Tensor) -> Tensor:
        low: Any = self.experts[f"{name}_low"]
        own = self.host[name](x)
        if x.dim() == 3:
            own = own.unsqueeze(2)  # one x for all experts
        gain, change = low.gain(self.scale), self.scale * low.up(low.down(dropped))
        if gain is None:
            return own + change
        bias = low.weight()[1]
        return gain * (own + change) if bias is None else gain * (own - bias + change) + bias
