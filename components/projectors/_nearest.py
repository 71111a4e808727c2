"""The module of `projector.nearest`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from assembler.ragged import Ragged, masked_mean, packed, parted, unread
from components._words import spelled_out

SAME = 1 - 1e-5
"""Cosine from which two samples are one."""
BEHIND = 4.0
"""What sets a place in the store that may not be looked up behind all others, whose cosines are -1 to 1."""


class Nearest(nn.Module):
    """What was said of the learned samples nearest to this one, from a store that fills while it trains.

    Attributes:
        keys: of the samples in the store, of length 1, [N, d]; drawn at first, as the words are, which are told of
            as long as the store is empty.
        words: embeddings of what was said of each, [N, S, D]; `real` [N, S] is where there is a word.
        count: samples that were stored since the start; past N the oldest give way.
    """

    keys: Tensor
    words: Tensor
    real: Tensor
    count: Tensor

    def __init__(self, inner: int, width: int, size: int, spell: int, top: int, least: float, beta: float) -> None:
        super().__init__()
        self.top, self.least, self.beta = top, least, beta
        self.trust = nn.Parameter(torch.zeros(width))
        self.register_buffer("keys", functional.normalize(torch.randn(size, inner), dim=-1))
        self.register_buffer("words", 0.02 * torch.randn(size, spell, width))
        self.register_buffer("real", torch.arange(spell).expand(size, -1) == 0)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self._speaker: tuple[nn.Module, ...] = ()

    def words_of(self, lm: nn.Module) -> None:
        """Take the words from the embedding table of this LLM, whose it stays."""
        self._speaker = (lm,)

    def forward(self, said: Tensor | None, x: Tensor | Ragged) -> Ragged:
        key = self.key(x)  # [B, d]
        if self.training and said is not None and not unread(key):
            self.store(key, said)
        near = cosines(key, self.keys.float())  # [B, N]
        rank = near - BEHIND * ~self.used
        if self.training:
            rank = rank - 2 * BEHIND * (near > SAME)  # a sample that is learned does not see its own answer
        best, nearest = rank.topk(self.top)  # [B, top]
        cosine = near.gather(1, nearest)
        told = ((best > -BEHIND / 2) | (self.count == 0)) & (cosine >= self.least)
        share = (self.beta * (cosine - 1)).exp()
        words = self.words[nearest] + share[..., None, None] * self.trust  # [B, top, S, D]
        real = self.real[nearest] & told.unsqueeze(-1)  # [B, top, S]
        return Ragged(*packed(words.flatten(1, 2), real.flatten(1)))

    @property
    def used(self) -> Tensor:
        """The places of the store that hold a sample, [N]."""
        return torch.arange(len(self.keys), device=self.count.device) < self.count

    def key(self, x: Tensor | Ragged) -> Tensor:
        """What a sample is found by: its mean token, of length 1, without a gradient: [B, d]."""
        values, mask = parted(x)
        pooled = values if values.dim() == 2 else masked_mean(values, mask)
        return functional.normalize(pooled.detach().float(), dim=-1)

    @torch.no_grad()
    def store(self, key: Tensor, said: Tensor) -> None:
        """Keep the samples [B, d] that are new, and what is said of each: ids [B, S], -1 after its end."""
        known = ((cosines(key, self.keys.float()) > SAME) & self.used).any(1)
        known |= (cosines(key, key) > SAME).tril(-1).any(1)  # it is in this batch twice
        new = (~known).nonzero().flatten()[-len(self.keys) :]
        place = (self.count + torch.arange(len(new), device=key.device)) % len(self.keys)
        self.keys[place] = key[new]
        self.words[place], self.real[place] = spelled_out(self._speaker[0], said[new])
        self.count += len(new)


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Of rows of length 1, [B, d] and [N, d] -> [B, N], whole where the rest of a model is halved."""
    if torch.compiler.is_compiling():
        return one @ other.T
    with torch.autocast(one.device.type, enabled=False):
        return one @ other.T
