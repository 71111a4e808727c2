"""Masked words: which tokens of a text are hidden, as what, and what is to be guessed."""

from __future__ import annotations

import re
from typing import Any, Self

import torch
from torch import Tensor, nn

from assembler.errors import AssemblerError

MASKS = ("[MASK]", "<mask>")
PIECE, STARTS = "##", ("\u0120", "\u2581")
"""How a piece within a word begins, or how one that starts a word does, by the kind of tokenizer."""
SPECIAL = re.compile(r"\[[A-Z]+\]|</?[a-z]+>")
IGNORED = -100


class Guess(nn.Module):
    """ids [B, T] and their mask -> the ids that are read, and the wanted ones, IGNORED where nothing is hidden.

    Args:
        mask: the id of [MASK].
        special: [V], tokens that are never hidden.
        starts: [V], tokens that begin a word.
        share: of the tokens that are hidden, or of the words where `whole`.
        whole: hide all tokens of a word together.
    """

    special: Tensor
    starts: Tensor

    def __init__(self, mask: int, special: Tensor, starts: Tensor, share: float, whole: bool) -> None:
        super().__init__()
        self.mask, self.share, self.whole = mask, share, whole
        self.register_buffer("special", special, persistent=False)
        self.register_buffer("starts", starts, persistent=False)

    @classmethod
    def of(cls, tokenizer: Any, name: str, share: float, whole: bool) -> Self:
        """By the vocabulary of a tokenizer.

        Raises:
            AssemblerError: it has no token for what is hidden.
        """
        vocabulary = tokenizer.get_vocab()
        mask = next((vocabulary[token] for token in MASKS if token in vocabulary), None)
        if mask is None:
            raise AssemblerError(f"{name} has no token {MASKS[0]} or {MASKS[1]}, and `pretrain` hides words as that")
        special, starts = (torch.zeros(max(vocabulary.values()) + 1, dtype=torch.bool, device="cpu") for _ in range(2))
        told = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        special[[i for token, i in vocabulary.items() if i in told or SPECIAL.fullmatch(token)]] = True
        within = [i for token, i in vocabulary.items() if token.startswith(PIECE)]
        begun = [i for token, i in vocabulary.items() if token.startswith(STARTS)]
        if begun and not within:
            starts[begun] = True
        else:  # without pieces every token is a word
            starts[:] = True
            starts[within] = False
        return cls(mask, special, starts | special, share, whole)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        draw = torch.rand(ids.shape, device=ids.device)
        if self.whole:
            word = (self.starts[ids].cumsum(1) - 1).clamp(min=0)  # [B, T] the number of the word that a token is of
            draw = draw.gather(1, word)
        hidden = (draw < self.share) & mask & ~self.special[ids]
        how = torch.rand(ids.shape, device=ids.device)
        other = torch.randint(len(self.special), ids.shape, device=ids.device)
        read = torch.where(hidden & (how < 0.8), self.mask, torch.where(hidden & (how >= 0.9), other, ids))
        return read, torch.where(hidden, ids, IGNORED)
