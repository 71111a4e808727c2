"""FlexiDepth: a layer that each token takes, or passes by a small MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from assembler.adapters.tap import first_of, with_first


class Gates:
    """The gates of the layers of one run, in order, for the loss over all of them."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.found: list[Tensor] = []

    def add(self, gate: Tensor) -> Tensor | None:
        """Note a layer's gate [B, T, 1]; after the last, mean_t (sum_l g_l)^2."""
        self.found.append(gate)
        if len(self.found) < self.layers:
            return None
        total, self.found = torch.cat(self.found, -1).sum(-1), []  # [B, T]
        return total.pow(2).mean()


class Router(nn.Module):
    """sigmoid(w . W_up RMSNorm(tanh(W_down x))): [B, T, d] -> [B, T, 1]."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.norm = nn.Linear(width, inner, bias=False), nn.RMSNorm(inner, eps=1e-6)
        self.up, self.read = nn.Linear(inner, width, bias=False), nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.up(self.norm(torch.tanh(self.down(x))))).sigmoid()


class Shortcut(nn.Module):
    """The MLP of those that pass by, in the form of the host's: W_d (f(W_g x) * W_u x), or W_d f(W_u x)."""

    def __init__(self, width: int, inner: int, act: Callable[[Tensor], Tensor], gated: bool) -> None:
        super().__init__()
        self.act = act
        self.gate = nn.Linear(width, inner, bias=False) if gated else None
        self.up, self.down = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        return self.down(self.act(up) if self.gate is None else self.act(self.gate(x)) * up)


class FlexibleLayer(nn.Module):
    """x + m g (layer(x) - x) + (1 - m) (1 - g) shortcut(norm2(x)), where g = router(norm1(x)) and m = g > tau.

    The layer runs on all tokens, so that those who pass by have keys and values too; nothing is saved by it.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(
        self,
        router: Router,
        shortcut: Shortcut,
        norms: tuple[Borrowed, Borrowed],
        threshold: float,
        penalty: float,
        gates: Gates,
    ) -> None:
        super().__init__()
        self.router, self.shortcut, self.norms = router, shortcut, norms
        self.threshold, self.penalty, self.gates = threshold, penalty, gates

    def forward(self, call: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        gate = self.router(self.norms[0](x))  # [B, T, 1]
        if self.training:
            squared = self.gates.add(gate)
            self.auxiliary_loss = None if squared is None else self.penalty * squared
        output = call(x, *args, **kwargs)
        taken = (gate > self.threshold).to(x.dtype)
        full, light = first_of(output) - x, self.shortcut(self.norms[1](x))
        return with_first(output, x + taken * gate * full + (1 - taken) * (1 - gate) * light)
