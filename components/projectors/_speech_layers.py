"""The modules of the speech adapters: one transformer, and three ways to shorten what goes through it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.ragged import Ragged, packed, paired
from components._ctc import ctc_loss
from components.projectors._attention import Block
from components.projectors._convolutions import StridedConvs
from components.projectors._layers import opened

Shorter = tuple[Tensor, Tensor | None, Tensor | None]
"""What a length adapter gives: tokens, their mask, and its loss where it learns."""


class SpeechTower(nn.Module):
    """Linear, transformer layers with a length adapter after the second, linear."""

    auxiliary_loss: Tensor | None = None

    def __init__(
        self, inner: int, outer: int, hidden: int, layers: int, heads: int, feed_forward: int, length: nn.Module | None
    ) -> None:
        super().__init__()
        self.into = nn.Linear(inner, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, feed_forward) for _ in range(layers))
        self.length = length
        self.after = min(2, layers)
        self.out = nn.Linear(hidden, outer)

    def forward(self, *given: Tensor | Ragged | None) -> Tensor | Ragged:
        """The target of the length adapter, where it has one, and then the tokens."""
        *targets, tokens = given
        assert tokens is not None
        x, mask = opened(tokens)
        x = self.into(x)  # [B, T, d]
        for index, block in enumerate(self.blocks, 1):
            x = block(x, mask)
            if index == self.after and self.length is not None:
                x, mask, self.auxiliary_loss = self.length(x, mask, *targets)
        return paired(self.out(x), mask)  # [B, T', out]


class Convs(StridedConvs):
    """Strided convolutions, which learn nothing of their own."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Shorter:  # type: ignore[override]
        return *super().forward(x, mask), None


class Cif(nn.Module):
    """Continuous integrate-and-fire: frames are summed up, by learned weights, until the weights reach one.

    In closed form token i takes of frame t what of its weight falls into [i, i + 1) of the running sum.
    """

    def __init__(self, width: int, most: int, weight: float) -> None:
        super().__init__()
        self.most, self.weight = most, weight
        self.linear = nn.Linear(width, 1)

    def forward(self, x: Tensor, mask: Tensor | None, count: Tensor | None = None) -> Shorter:
        a = self.linear(x).squeeze(-1).float().sigmoid()  # [B, T]
        a = a if mask is None else torch.where(mask, a, 0)
        total, loss, lengths = a.sum(1), None, None
        if count is not None:
            loss = self.weight * (total - count).abs().mean()
        if count is not None and self.training:
            lengths = count.clamp(max=self.most)
            a = a * (lengths / total.clamp(min=1e-6)).unsqueeze(1)
        tokens, full = integrate(a, x, self.most)
        lengths = full if lengths is None else lengths
        return tokens, torch.arange(self.most, device=x.device) < lengths.unsqueeze(1), loss


def integrate(a: Tensor, x: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, most, D] of frames x [B, T, D] with weights a [B, T], and how many of them are full [B]."""
    end = a.cumsum(1)  # [B, T]
    place = torch.arange(most, device=a.device, dtype=a.dtype).view(1, -1, 1)
    share = F.relu(torch.minimum(end.unsqueeze(1), place + 1) - torch.maximum((end - a).unsqueeze(1), place))
    return share.to(x.dtype) @ x, end[:, -1].floor().clamp(max=most)


class CtcCompress(nn.Module):
    """Successive frames that a linear CTC classifier gives the same label become one token, their mean."""

    def __init__(self, width: int, labels: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.linear = nn.Linear(width, labels)

    def forward(self, x: Tensor, mask: Tensor | None, labels: Tensor | None = None) -> Shorter:
        logits = self.linear(x)  # [B, T, V]
        loss = None if labels is None else self.weight * ctc_loss(logits, mask, labels)
        best = logits.argmax(-1)
        if mask is not None:
            best = packed(best.unsqueeze(-1), mask)[0].squeeze(-1)
            x, mask = packed(x, mask)
        tokens, real = run_means(x, best, mask)
        return tokens, real, loss


def run_means(x: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean of x [B, T, D] over each run of equal labels [B, T], in order: [B, T, D], and which rows are one."""
    begins = F.pad(labels[:, 1:] != labels[:, :-1], (1, 0))  # [B, T]
    run = begins.long().cumsum(1)
    member = run.unsqueeze(1) == torch.arange(x.shape[1], device=x.device).view(1, -1, 1)  # [B, runs, T]
    member = member if mask is None else member & mask.unsqueeze(1)
    weight = member.to(x.dtype)
    return weight @ x / weight.sum(-1, keepdim=True).clamp(min=1), member.any(-1)
