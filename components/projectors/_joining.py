"""The modules of the parts that join several inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, paired
from components.projectors._layers import opened


class Concatenated(nn.Module):
    """Inputs along the tokens; where one has a mask, the others are real throughout."""

    def forward(self, *inputs: Tensor | Ragged) -> Tensor | Ragged:
        parts = [opened(x) for x in inputs]
        joined = torch.cat([x for x, _ in parts], 1)  # [B, T_1 + T_2 + ..., D]
        if all(mask is None for _, mask in parts):
            return joined
        masks = [x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask for x, mask in parts]
        return Ragged(joined, torch.cat(masks, 1))


class GatedSumLayer(nn.Module):
    """The first input, and the others times the tanh of a gate a channel."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(count - 1, width))

    def forward(self, first: Tensor | Ragged, *others: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = opened(first)
        for gate, other in zip(self.gates.tanh(), others, strict=True):
            x = x + gate * opened(other)[0]  # [B, T, D]
        return paired(x, mask)
