"""Attention over the changes of several adapters, and gates over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed, Wire


class Attention(nn.Module):
    """sum_n softmax_n(Q h . K a_n) V a_n, [B, T, d] for each of N changes a_n and what the first adapter reads.

    Without `value` V is the identity and does not learn.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(self, width: int, regularise: float, first: nn.Module, value: bool = True) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width, bias=False) if value else None
        self.regularise = regularise
        self.first = Borrowed(first)
        for linear in (self.query, self.key):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        if self.value is not None:
            nn.init.constant_(self.value.weight, 1e-6)
            with torch.no_grad():
                self.value.weight.fill_diagonal_(1.0)

    def forward(self, changes: list[Tensor], *reads: Tensor) -> Tensor:
        inner = getattr(self.first.module, "inner", None)
        own = reads[0] if inner is None else inner(*reads)  # what the adapters themselves compute from
        query = self.query(own)  # [B, T, d]
        stacked = torch.stack(changes, -2)  # [B, T, N, d]
        scores = (self.key(stacked) @ query.unsqueeze(-1)).squeeze(-1)  # [B, T, N]
        if self.training and self.value is not None:
            away = self.value.weight - torch.eye(len(self.value.weight), device=query.device, dtype=query.dtype)
            self.auxiliary_loss = self.regularise * away.pow(2).sum()
        values = stacked if self.value is None else self.value(stacked)
        return (scores.softmax(-1).unsqueeze(-2) @ values).squeeze(-2)


class Gates(nn.Module):
    """softmax over N of G x for each token, or over the k largest alone: [B, T, d] -> [B, T, N].

    Args:
        width: d.
        count: N.
        top: k; 0 keeps all.
        temperature: divides G x.
        balance: weight of N sum_n f_n p_n in the loss, f_n the share of tokens that go to n and p_n its mean gate.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(self, width: int, count: int, top: int, temperature: float, balance: float) -> None:
        super().__init__()
        self.gate = nn.Linear(width, count, bias=False)
        self.count, self.top, self.temperature, self.balance = count, min(top, count), temperature, balance
        nn.init.normal_(self.gate.weight, std=0.02)

    def gates(self, x: Tensor, *_: Tensor) -> Tensor:
        logits = self.gate(x).float() / self.temperature  # [B, T, N]
        if not self.top:
            gates = logits.softmax(-1)
        else:
            kept = logits.topk(self.top, -1).indices
            mask = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, kept, True)
            gates = logits.masked_fill(~mask, float("-inf")).softmax(-1)
        if self.training and self.balance:
            share = (gates > 0 if self.top else gates == gates.amax(-1, keepdim=True)).float()
            flat = tuple(range(share.dim() - 1))
            weighed = share.mean(flat) / max(self.top, 1) * logits.softmax(-1).mean(flat)
            self.auxiliary_loss = self.balance * self.count * weighed.sum()
        return gates.to(x.dtype)


class ById(nn.Module):
    """One adapter for each row of the batch, by its number: ids [B] or [1] -> gates [B, 1, N]."""

    def __init__(self, ids: Wire, count: int) -> None:
        super().__init__()
        self.ids, self.count = ids, count

    def gates(self, x: Tensor, *_: Tensor) -> Tensor:
        ids = self.ids().to(x.device).expand(x.shape[0])
        hot = (ids[:, None] == torch.arange(self.count, device=x.device)).to(x.dtype)  # [B, N]
        return hot.reshape(x.shape[0], *[1] * (x.dim() - 2), self.count)
