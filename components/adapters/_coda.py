"""CoDA's layer: a router, a soft top-k, and the frozen layer on the tokens that it picks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.attention import Attend
from assembler.adapters.host import Borrowed, Heads
from assembler.adapters.tap import first_of, with_first
from components.adapters._moa import Frozen

FIRST, FALL = 4.0, 0.7
"""eps in the first round of the soft top-k, and what it is multiplied by after each."""


def soft_top_k(scores: Tensor, k: int, steps: int, eps: float) -> Tensor:
    """The lambda in [0, 1]^n of sum k that maximises scores . lambda + eps * entropy, by coordinate ascent: [B, n].

    Args:
        scores: [B, n].
        k: how many tokens lambda stands for.
        steps: rounds.
        eps: weight of the entropy in the last rounds.
    """
    bound, now = torch.zeros_like(scores), max(FIRST, eps)
    for _ in range(steps):
        shift = now * (math.log(k) - torch.logsumexp((scores + bound) / now, -1, keepdim=True))  # [B, 1]
        bound = (-scores - shift).clamp(max=0)
        last, now = now, max(now * FALL, eps)
    return ((scores + bound + shift) / last).exp()


class Conditional(nn.Module):
    """X + A(LN X) + P^T lambda_k (F(P X) - P X) around the layer F: [B, T, d] -> [B, T, d].

    With `everyone` F's attention has the queries of the chosen tokens, and keys and values of all.
    """

    def __init__(
        self,
        width: int,
        adapter: nn.Module,
        reduction: float,
        steps: int,
        eps: float,
        mask: Borrowed,
        everyone: Everyone | None = None,
    ) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.randn(width) * width**-0.5)
        self.norm, self.adapter = nn.LayerNorm(width), adapter
        self.reduction, self.steps, self.eps, self.mask = reduction, steps, eps, mask
        self.everyone = everyone

    def forward(self, call: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        count = x.shape[1]
        k = math.ceil(count / self.reduction)
        light = x + self.adapter(self.norm(x))
        if k == count:
            output = call(x, *args, **kwargs)
            return with_first(output, light + first_of(output) - x)
        chances = self._chances(x, k)  # [B, T]
        chosen = chances.topk(k, -1).indices  # [B, k]
        places = chosen.unsqueeze(-1).expand(-1, -1, x.shape[-1])
        few = x.gather(1, places)  # [B, k, d]
        keys = self.everyone is None
        args = tuple(among(value, chosen, count, keys) for value in args)
        kwargs = {key: among(value, chosen, count, keys) for key, value in kwargs.items()}
        if self.everyone is not None:
            self.everyone.stream = x
        output = call(few, *args, **kwargs)
        heavy = chances.gather(1, chosen).unsqueeze(-1) * (first_of(output) - few)
        return with_first(output, light.scatter_add(1, places, heavy))

    def _chances(self, x: Tensor, k: int) -> Tensor:
        """lambda, zero for padding."""
        scores, mask = x @ self.router, self.mask.module.mask
        if mask is None:
            return soft_top_k(scores, k, self.steps, self.eps)
        real: Tensor = mask  # type: ignore[assignment]
        return soft_top_k(torch.where(real, scores, -1e4), k, self.steps, self.eps) * real


def among(value: Any, chosen: Tensor, count: int, keys: bool = True) -> Any:
    """An attention mask [B, 1, T or 1, T] for the chosen tokens [B, k], as queries and with `keys` as keys too;
    anything else as it is."""
    if not isinstance(value, Tensor) or value.dim() != 4 or value.shape[-1] != count:
        return value
    batch, k = chosen.shape
    if value.shape[-2] == count:
        rows = chosen[:, None, :, None].expand(-1, value.shape[1], -1, count)
        value = value.expand(batch, -1, -1, -1).gather(2, rows)
    if not keys:
        return value
    columns = chosen[:, None, None].expand(-1, value.shape[1], value.shape[2], k)
    return value.expand(batch, -1, -1, -1).gather(3, columns)


class Everyone(nn.Module):
    """Attention of a layer's own queries to the keys and values of all tokens of the stream before it was cut.

    Attributes:
        stream: [B, T, d], until the layer's attention has read it.
    """

    def __init__(self, heads: Heads, norm: Borrowed | None, projections: tuple[Frozen, Frozen]) -> None:
        super().__init__()
        self.heads, self.norm, self.projections = heads, norm, projections
        self.stream: Tensor | None = None

    def forward(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        stream, self.stream = self.stream, None
        if stream is None:  # all tokens pass
            return attend(q, k, v)
        read = stream if self.norm is None else self.norm(stream)
        k, v = (made(read).unflatten(-1, (self.heads.kv, -1)).transpose(1, 2) for made in self.projections)
        return attend(q, k, v)  # [B, H, k, d]
