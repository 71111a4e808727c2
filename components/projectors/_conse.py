"""The module of `projector.conse`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.ragged import Ragged, packed, paired
from components.projectors._layers import opened


class ClassWords(nn.Module):
    """The rows of a table of words that a classifier's likeliest classes have, one by one or as one."""

    def __init__(self, classes: int, width: int, top: int, blend: bool, least: float) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.zeros(classes, width))
        self.top, self.blend, self.least = top, blend, least

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
        mask = None if mask is None else mask.unsqueeze(-1).expand_as(p)  # [B, T, top]
        if self.least:
            mask = sure(p, mask, self.least)
            return Ragged(*packed(words.flatten(1, 2), mask.flatten(1)))
        return paired(words.flatten(1, 2), None if mask is None else mask.flatten(1))


class SpelledClasses(nn.Module):
    """The names of a classifier's likeliest classes, token by token, and how likely each is.

    Attributes:
        words: embeddings of each name's tokens, [C, S, D]; `real` [C, S] is where there is one.
    """

    words: Tensor
    real: Tensor

    def __init__(self, classes: int, width: int, top: int, spell: int, least: float) -> None:
        super().__init__()
        self.top, self.least, self.trust = top, least, nn.Parameter(torch.zeros(width))
        self.speak(torch.zeros(classes, spell, width), torch.ones(classes, spell, dtype=torch.bool))

    def speak(self, words: Tensor, real: Tensor) -> None:
        """Take these words, which are the LLM's and so in no file of what was learned."""
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("real", real, persistent=False)

    def forward(self, logits: Tensor | Ragged) -> Ragged:
        x, mask = opened(logits)  # [B, T, C]
        p, likeliest = x.float().softmax(-1).topk(self.top)  # [B, T, top]
        words = self.words[likeliest] + p[..., None, None] * self.trust  # [B, T, top, S, D]
        mask = None if mask is None else mask.unsqueeze(-1).expand_as(p)  # [B, T, top]
        real = self.real[likeliest] & sure(p, mask, self.least).unsqueeze(-1)  # [B, T, top, S]
        return Ragged(*packed(words.flatten(1, 3), real.flatten(1)))


def sure(p: Tensor, mask: Tensor | None, least: float) -> Tensor:
    """The classes of real positions that are at least so likely: p [B, T, top] and mask alike -> the same."""
    likely = p >= least
    return likely if mask is None else likely & mask
