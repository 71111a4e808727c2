"""VLSM-Adapter's blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from components.adapters._bottleneck import ACTIVATIONS


class Block(nn.Module):
    """f(W_2 f(W_1 h + b_1) + b_2), or without the outer f: the change of h [..., d]."""

    def __init__(self, width: int, inner: int, activation: str, outer: bool, zero: bool) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, inner), nn.Linear(inner, width)
        self.activation, self.outer = ACTIVATIONS[activation], outer
        if zero:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        change = self.up(self.activation(self.down(x)))
        return self.activation(change) if self.outer else change


class Condition(nn.Module):
    """The change of the condition c [B, D]: that of its own block, and what the end of each text state becomes."""

    def __init__(self, own: Block, blocks: list[Block], mask: Borrowed) -> None:
        super().__init__()
        self.own, self.blocks, self.mask = own, nn.ModuleList(blocks), mask

    def forward(self, condition: Tensor, *states: Tensor) -> Tensor:
        mask: Tensor = self.mask.module.mask  # type: ignore[assignment]
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)[:, None, None]  # [B, 1, 1]
        change = self.own(condition)
        for block, state in zip(self.blocks, states, strict=True):
            end = state.gather(1, last.expand(-1, 1, state.shape[-1]))[:, 0]  # [B, D]
            change = change + end + block(end)
        return change
