"""The bottleneck that a family of adapters puts at different places: up(f(down(x)))."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


class Bottleneck(nn.Module):
    """s up(f(down(x))) with down [m, d] and up [d, m]: the change that is added at a point, [B, T, d] -> [B, T, d].

    Args:
        width: d.
        inner: m.
        activation: f, one of ACTIVATIONS.
        init: `zero` (down Kaiming-uniform, up zero), `bert` (N(0, 0.02)) or `houlsby` (truncated N(0, 1e-3)); the
            biases are zero.
        scale: s: a number, or a factor that learns from one on: `learned` for all outputs, `channel` for each.
        dropout: rate on f(down(x)), in training.
    """

    def __init__(
        self,
        width: int,
        inner: int,
        activation: str,
        init: str = "zero",
        scale: float | str = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation = ACTIVATIONS[activation]
        learned = scale if isinstance(scale, str) else ""
        self.scale = nn.Parameter(torch.ones(width if learned == "channel" else 1)) if learned else scale
        self.dropout = nn.Dropout(dropout)
        for linear in (self.down, self.up):
            nn.init.zeros_(linear.bias)
            if init == "bert":
                nn.init.normal_(linear.weight, std=0.02)
            elif init == "houlsby":
                nn.init.trunc_normal_(linear.weight, std=1e-3, a=-2e-3, b=2e-3)
        if init == "zero":
            nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.dropout(self.activation(self.down(x)))  # [B, T, m]
        change = self.up(inner)  # [B, T, d]
        return change if isinstance(self.scale, float) and self.scale == 1 else change * self.scale


class AfterNorm(Bottleneck):
    """The bottleneck of LN(m + x), for the sub-layer's m and the stream x; LN is the host's, or nothing."""

    def __init__(self, norm: Borrowed | None, *sizes: Any, **knobs: Any) -> None:
        super().__init__(*sizes, **knobs)
        self.norm = norm

    def inner(self, added: Tensor, stream: Tensor) -> Tensor:
        """What the bottleneck itself reads."""
        value = added + stream  # [B, T, d]
        return value if self.norm is None else self.norm(value)

    def forward(self, added: Tensor, stream: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(self.inner(added, stream))
