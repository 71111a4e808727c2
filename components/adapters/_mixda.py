"""MixDA: memories beside an MLP's second matrix, and the gate that mixes them with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Wire


class Memory(nn.Module):
    """U gelu(D h) of what the MLP's second matrix reads, h [B, T, ff]; U starts at zero.

    It reads that matrix's output too, for the gate beside it.
    """

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(inputs, inner), nn.Linear(inner, outputs)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, h: Tensor, f: Tensor) -> Tensor:
        return self.up(F.gelu(self.down(h)))  # [B, T, ff] -> [B, T, d]


class Mixture(nn.Module):
    """g_0 f + sum_k g_k a_k in place of f + sum_k a_k, for the changes a_k of the memories beside f: [B, T, d].

    g = softmax(MLP(h)), of the last token of each row, of each token, or of the first. In training `preserve` weighs
    the mean square of what the mixture is away from f, over the rows for which `old` is 1.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(self, inputs: int, inner: int, count: int, dropout: float, reads: str, preserve: float, old: Wire):
        super().__init__()
        steps: list[nn.Module] = []
        for width in (inputs, inner, inner):
            steps += [nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout)]
        self.gate = nn.Sequential(*steps, nn.Linear(inner, count + 1))
        self.reads, self.preserve, self.old = reads, preserve, old

    def shares(self, h: Tensor) -> Tensor:
        """g, the original first: [B, T or 1, K + 1]."""
        if self.reads == "last":
            h = h[..., -1:, :]
        elif self.reads == "first":
            h = h[..., :1, :]
        return self.gate(h).softmax(-1)

    def forward(self, changes: list[Tensor], h: Tensor, f: Tensor) -> Tensor:
        shares = self.shares(h)
        stacked = torch.stack(changes, -1)  # [B, T, d, K]
        change = (shares[..., :1] - 1) * f + (stacked * shares[..., None, 1:]).sum(-1)
        if self.training and self.preserve:
            away = change.float().pow(2).flatten(1).mean(1)  # [B]
            old = self.old().to(away).expand_as(away)
            self.auxiliary_loss = self.preserve * (away * old).sum() / old.sum().clamp(min=1)
        return change
