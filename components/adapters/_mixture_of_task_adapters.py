"""Bottlenecks of several tasks, computed at once, and the gate that mixes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Wire
from components.adapters._bottleneck import ACTIVATIONS


class Mixture(nn.Module):
    """sum_k g_k U_k f(D_k x): [B, T, d] -> [B, T, d]; g is the gate's, or one-hot for rows whose task is told."""

    def __init__(self, width: int, inner: int, tasks: int, activation: str, top_k: int | None, ids: Wire) -> None:
        super().__init__()
        self.gate = nn.Linear(width, tasks)
        self.down, self.down_bias = (
            nn.Parameter(torch.empty(tasks, inner, width)),
            nn.Parameter(torch.zeros(tasks, inner)),
        )
        self.up, self.up_bias = nn.Parameter(torch.zeros(tasks, width, inner)), nn.Parameter(torch.zeros(tasks, width))
        nn.init.uniform_(self.down, -(width**-0.5), width**-0.5)
        self.activation, self.top_k, self.ids = ACTIVATIONS[activation], top_k, ids

    def gates(self, x: Tensor) -> Tensor:
        """[B, T, N]."""
        chances = self.gate(x).softmax(-1)
        if self.top_k is not None:
            kept = torch.zeros_like(chances).scatter(-1, chances.topk(self.top_k, -1).indices, 1.0)
            chances = chances * kept
            chances = chances / chances.sum(-1, keepdim=True)
        told = self.ids().to(x.device).view(-1, 1, 1)  # [B or 1, 1, 1]
        alone = F.one_hot(told.clamp(min=0)[..., 0], chances.shape[-1]).to(x.dtype)  # [B or 1, 1, N]
        return torch.where(told < 0, chances, alone)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.activation(torch.einsum("btd,nmd->btnm", x, self.down) + self.down_bias)  # [B, T, N, m]
        gates = self.gates(x)
        return torch.einsum("btnm,ndm->btd", inner * gates.unsqueeze(-1), self.up) + gates @ self.up_bias
