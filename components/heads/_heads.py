"""The modules of the heads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from assembler.ragged import Ragged, masked_mean, parted
from components._ctc import ctc_loss

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "huber": F.huber_loss}


class PooledHead(nn.Module):
    """Mean over the real tokens, then one linear."""

    def __init__(self, width: int, outer: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, outer)

    def logits(self, x: Tensor | Ragged) -> Tensor:
        values, mask = parted(x)
        pooled = masked_mean(values, mask) if values.dim() == 3 else values  # [B, in]
        return self.linear(self.dropout(pooled))  # [B, out]


class ClassifierHead(PooledHead):
    """Classes, by their cross-entropy."""

    def forward(self, labels: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        logits = self.logits(x)  # [B, classes]
        return _with_loss(logits, None if labels is None else F.cross_entropy(logits.float(), labels))


class RegressorHead(PooledHead):
    """Numbers, by their squared error or Huber's."""

    def __init__(self, width: int, outer: int, dropout: float, loss: str) -> None:
        super().__init__(width, outer, dropout)
        self.loss = LOSSES[loss]

    def forward(self, scores: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        logits = self.logits(x)  # [B, scores]
        return _with_loss(logits, None if scores is None else self.loss(logits.float(), scores))


class CtcHead(nn.Module):
    """One linear on every token, and CTC over the real ones."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, labels)

    def forward(self, transcript: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        values, mask = parted(x)
        logits = self.linear(values)  # [B, T, V]
        loss = None if transcript is None else ctc_loss(logits, mask, transcript)
        return {**_with_loss(logits, loss), "mask": mask}


def _with_loss(logits: Tensor, loss: Tensor | None) -> dict[str, Any]:
    return {"logits": logits} if loss is None else {"loss": loss, "logits": logits}
