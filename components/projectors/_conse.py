"""The module of `projector.conse`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, paired
from components.projectors._layers import opened


class ClassWords(nn.Module):
    """The rows of a table of words that a classifier's likeliest classes have, one by one or as one."""

    def __init__(self, classes: int, width: int, top: int, blend: bool) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.zeros(classes, width))
        self.top, self.blend = top, blend

    def speak(self, words: Tensor) -> None:
        """Take this table [C, D] for the words."""
        self.words = nn.Parameter(words)

    def forward(self, logits: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = opened(logits)  # [B, T, C]
        p, likeliest = x.float().softmax(-1).topk(self.top)  # [B, T, top]
        words = self.words[likeliest]  # [B, T, top, D]
        if self.blend:
            share = p / p.sum(-1, keepdim=True)
            return paired((share.unsqueeze(-1) * words).sum(-2), mask)  # [B, T, D]
        return paired(words.flatten(1, 2), None if mask is None else mask.repeat_interleave(self.top, 1))
