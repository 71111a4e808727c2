"""The modules of the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.ragged import Ragged, masked_mean, parted
from components._ctc import ctc_loss

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "huber": F.huber_loss}


def mean_of(x: Tensor | Ragged) -> Tensor:
    """The mean of the real tokens of [B, T, in], or an embedding as it is: [B, in]."""
    values, mask = parted(x)
    return masked_mean(values, mask) if values.dim() == 3 else values


class PooledHead(nn.Module):
    """Mean over the real tokens, then one linear."""

    def __init__(self, width: int, outer: int, dropout: float, norm: bool = False) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6) if norm else nn.Identity()
        self.linear = nn.Linear(width, outer)

    def logits(self, x: Tensor | Ragged) -> Tensor:
        return self.linear(self.norm(self.dropout(mean_of(x))))  # [B, out]


class ClassifierHead(PooledHead):
    """Classes, by their cross-entropy."""

    def forward(self, labels: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        logits = self.logits(x)  # [B, classes]
        return with_loss(logits, None if labels is None else F.cross_entropy(logits.float(), labels))


class RegressorHead(PooledHead):
    """Numbers, by their squared error or Huber's."""

    def __init__(self, width: int, outer: int, dropout: float, loss: str) -> None:
        super().__init__(width, outer, dropout)
        self.loss = LOSSES[loss]

    def forward(self, scores: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        logits = self.logits(x)  # [B, scores]
        return with_loss(logits, None if scores is None else self.loss(logits.float(), scores))


class WordHead(nn.Module):
    """Logits of words as they are, by their cross-entropy."""

    def forward(self, word: Tensor | None, logits: Tensor) -> dict[str, Any]:
        return with_loss(logits, None if word is None else F.cross_entropy(logits.float(), word))


class MultiLabelHead(PooledHead):
    """Yes or no for each label, by the cross-entropies of both."""

    def forward(self, labels: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        logits = self.logits(x)  # [B, labels]
        loss = None if labels is None else F.binary_cross_entropy_with_logits(logits.float(), labels)
        return with_loss(logits, loss)


class DependencyHead(nn.Module):
    """Scores of every token as the head of every other, by the cross-entropies of yes and no."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.dependent, self.head = nn.Linear(width, rank, bias=False), nn.Linear(width, rank, bias=False)

    def forward(self, words: Tensor | None, heads: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        values, _ = parted(x)
        scores = self.dependent(values) @ self.head(values).transpose(1, 2) / self.head.out_features**0.5  # [B, T, T]
        return with_loss(scores, None if words is None or heads is None else self.loss(scores.float(), words, heads))

    def loss(self, scores: Tensor, words: Tensor, heads: Tensor) -> Tensor:
        """Over the words [B, W] that have a head, and the root and all words as what it may be."""
        size = scores.shape[-1]
        place = words.clamp(min=0)
        rows = scores.gather(1, place.unsqueeze(-1).expand(-1, -1, size))  # [B, W, T]
        may = torch.zeros_like(scores[:, 0]).scatter(1, place, 1.0)  # [B, T]
        may[:, 0] = 1.0
        counts = ((words >= 0) & (heads >= 0)).unsqueeze(-1) * may.unsqueeze(1)  # [B, W, T]
        true = F.one_hot(heads.clamp(min=0), size).to(scores.dtype)
        loss = F.binary_cross_entropy_with_logits(rows, true, counts, reduction="sum")
        return loss / counts.sum().clamp(min=1)


class CtcHead(nn.Module):
    """One linear on every token, and CTC over the real ones."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, labels)

    def forward(self, transcript: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        values, mask = parted(x)
        logits = self.linear(values)  # [B, T, V]
        loss = None if transcript is None else ctc_loss(logits, mask, transcript)
        return {**with_loss(logits, loss), "mask": mask}


class MaskHead(nn.Module):
    """Logits of classes a pixel, by Dice and cross-entropy."""

    def __init__(
        self,
        width: int,
        classes: int,
        grid: tuple[int, int] | None,
        size: tuple[int, int],
        dice: float,
        entropy: float,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes) if grid is not None else None
        self.grid, self.size, self.dice, self.entropy = grid, size, dice, entropy

    def forward(self, masks: Tensor | None, x: Tensor) -> dict[str, Any]:
        if self.linear is not None:
            assert self.grid is not None
            small = self.linear(x).transpose(1, 2).unflatten(-1, self.grid)  # [B, K, h, w]
            x = F.interpolate(small, self.size, mode="bilinear", align_corners=False)
        return with_loss(x, None if masks is None else self.loss(x.float(), masks))

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Of logits [B, K, h, w] and class numbers [B, H, W]."""
        if logits.shape[-2:] != masks.shape[-2:]:
            logits = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
        if logits.shape[1] == 1:
            true = masks.unsqueeze(1).to(logits.dtype)
            chances, entropy = logits.sigmoid(), F.binary_cross_entropy_with_logits(logits, true)
        else:
            true = F.one_hot(masks, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
            chances, entropy = logits.softmax(1), F.cross_entropy(logits, masks)
        both, either = (chances * true).sum((-2, -1)), (chances + true).sum((-2, -1))  # [B, K]
        return self.dice * (1 - (2 * both + 1) / (either + 1)).mean() + self.entropy * entropy


def with_loss(logits: Tensor, loss: Tensor | None) -> dict[str, Any]:
    """What an objective gives: its loss where there is one."""
    return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}
