"""PEMA: a memory of final states beside a language model's head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Wire


class Memory(nn.Module):
    """lam softmax(W B_pd A f) + (1 - lam) softmax(W f), as logarithms, for the final state f and the host's head W.

    In training W B_pd A f alone, [B, T, V]. No gradient goes into f.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(self, width: int, rank: int, weight: float, share: Wire) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.rebuild = nn.Linear(rank, width, bias=False)
        self.predict = nn.Linear(rank, width, bias=False)
        self.weight, self.share = weight, share

    def forward(self, call: Callable[[Tensor], Tensor], f: Tensor) -> Tensor:
        f = f.detach()  # [B, T, d]
        inner = self.down(f)  # [B, T, r]
        if torch.is_grad_enabled():
            self.auxiliary_loss = self.weight * (self.rebuild(inner) - f).float().pow(2).mean()
        own = call(self.predict(inner))
        if self.training:
            return own
        share = self.share().to(own).reshape(-1, 1, 1)
        two: Any = (share.log() + own.log_softmax(-1), (1 - share).log() + call(f).log_softmax(-1))
        return torch.logaddexp(*two)
