"""The modules of the objectives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.ragged import Ragged, masked_mean, parted
from components._words import embedded

LARGEST = math.log(100)


class ContrastiveLoss(nn.Module):
    """CLIP's or SigLIP's loss of a batch of pairs, and their embeddings."""

    def __init__(self, first: int, second: int, width: int | None, loss: str) -> None:
        super().__init__()
        self.sigmoid = loss == "siglip"
        self.first = nn.Linear(first, width, bias=False) if width else nn.Identity()
        self.second = nn.Linear(second, width, bias=False) if width else nn.Identity()
        self.scale = nn.Parameter(torch.tensor(math.log(10 if self.sigmoid else 1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(-10.0)) if self.sigmoid else None

    def forward(self, first: Tensor | Ragged, second: Tensor | Ragged) -> dict[str, Any]:
        x, y = (_unit(project(_pooled(z))) for project, z in ((self.first, first), (self.second, second)))  # [B, D]
        if self.bias is None:
            likeness = self.scale.clamp(max=LARGEST).exp() * x @ y.T  # [B, B]
            own = torch.arange(x.shape[0], device=x.device)
            loss = (F.cross_entropy(likeness, own) + F.cross_entropy(likeness.T, own)) / 2
        else:
            sign = 2 * torch.eye(x.shape[0], device=x.device) - 1
            loss = -F.logsigmoid(sign * (self.scale.exp() * x @ y.T + self.bias)).sum() / x.shape[0]
        return {"loss": loss, "embeddings": torch.stack([x, y], 1)}


class TokenAlignmentLoss(nn.Module):
    """The contrastive loss of projected tokens to the LLM's embeddings of the words that their patches show."""

    def __init__(self, temperature: float, threshold: float, keep: int, sharpness: float) -> None:
        super().__init__()
        self.temperature, self.threshold, self.keep, self.sharpness = temperature, threshold, keep, sharpness
        self._lm: tuple[Any, ...] = ()

    def words_of(self, lm: nn.Module) -> None:
        """Read the words' embeddings from this LLM, which stays another node's module."""
        self._lm = (lm,)  # in a tuple, so that torch does not take it for a part of this module

    def forward(
        self, ids: Tensor | None, tokens: Tensor | Ragged, patches: Tensor | Ragged, words: Tensor
    ) -> dict[str, Any]:
        x, mask = parted(tokens)
        p = _unit(x)  # [B, T, D]
        if ids is None:
            return {"tokens": p}
        shown, where = self.labels(parted(patches)[0], words, ids)  # [B, T]
        where = where if mask is None else where & mask
        used = F.one_hot(shown[where], ids.shape[0]).any(0)  # [words]
        likeness = p[where] @ _unit(embedded(self._lm[0], ids)).T / self.temperature  # [N, words]
        losses = F.cross_entropy(likeness.masked_fill(~used, -torch.inf), shown[where], reduction="sum")
        return {"loss": losses / where.sum().clamp(min=1), "tokens": p}

    @torch.no_grad()
    def labels(self, patches: Tensor, words: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The row of the word that each patch shows [B, T], and whether it shows one; equal words are the first."""
        same = (ids.unsqueeze(0) == ids.unsqueeze(1)).all(-1)  # [W, W]
        again = same.float().argmax(1) != torch.arange(ids.shape[0], device=ids.device)
        likeness = (_unit(patches) @ _unit(words).T).masked_fill(again, -torch.inf)  # [B, T, W]
        best, rows = likeness.topk(min(self.keep, ids.shape[0]), dim=-1)
        chance = (best / self.sharpness).masked_fill(best <= self.threshold, -torch.inf)
        where = best[..., 0] > self.threshold
        chance = torch.where(where.unsqueeze(-1), chance, 0).softmax(-1)  # a softmax over nothing is no number
        drawn = torch.multinomial(chance.flatten(0, 1), 1).view(where.shape) if self.training else chance.argmax(-1)
        return rows.gather(-1, drawn.unsqueeze(-1)).squeeze(-1), where


def _pooled(x: Tensor | Ragged) -> Tensor:
    values, mask = parted(x)
    return masked_mean(values, mask) if values.dim() == 3 else values


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1)
