"""The loss of connectionist temporal classification, for the head and for the adapter that compresses by it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from assembler.ragged import packed


def ctc_loss(logits: Tensor, mask: Tensor | None, labels: Tensor) -> Tensor:
    """-log p(labels | logits), a label's mean and then a sample's: logits [B, T, V], labels [B, S] padded with blanks.

    A sample whose labels have no room in its real places gives no loss. Source: Graves et al., 2006.
    """
    places = logits.new_full((len(logits),), logits.shape[1], dtype=torch.long)
    if mask is not None:
        logits, mask = packed(logits, mask)
        places = mask.sum(1)
    chances = logits.float().log_softmax(-1).transpose(0, 1)  # [T, B, V]
    return F.ctc_loss(chances, labels, places, (labels > 0).sum(1), zero_infinity=True)
