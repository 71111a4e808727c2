"""Linear discriminant analysis of running sums."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.ragged import Ragged
from components.heads._heads import mean_of, with_loss

UNSEEN = -1e4
"""The score of a class that has no sample yet."""


class LdaHead(nn.Module):
    """e^t (w_c x + b_c); the sums behind w and b grow by every batch of training. Before the first, w is drawn.

    Attributes:
        count: samples of each class, [C].
        sums: of their embeddings, [C, d].
        products: sum of x x' over all samples, [d, d].
        weight: w, [C, d], as of the last batch that was added; `bias` is b, [C].
    """

    count: Tensor
    sums: Tensor
    products: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, classes: int, eps: float) -> None:
        super().__init__()
        self.eps, self.log_scale = eps, nn.Parameter(torch.zeros(()))
        exact: dict[str, Any] = {"dtype": torch.float64}
        self.register_buffer("count", torch.zeros(classes, **exact))
        self.register_buffer("sums", torch.zeros(classes, width, **exact))
        self.register_buffer("products", torch.zeros(width, width, **exact))
        self.register_buffer("weight", nn.init.normal_(torch.empty(classes, width), std=0.02))
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, labels: Tensor | None, x: Tensor | Ragged) -> dict[str, Any]:
        pooled = mean_of(x)  # [B, d]
        if self.training and labels is not None:
            self.add(pooled.detach(), labels)
        scores = F.linear(pooled, self.weight.to(pooled), self.bias.to(pooled))  # [B, C]
        logits = self.log_scale.exp() * scores
        return with_loss(logits, None if labels is None else F.cross_entropy(logits.float(), labels))

    @torch.no_grad()
    def add(self, x: Tensor, labels: Tensor) -> None:
        """Add a batch [B, d] and its classes [B] to the sums, and solve for w and b anew."""
        exact = x.double()
        self.count.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float64))
        self.sums.index_add_(0, labels, exact)
        self.products.add_(exact.T @ exact)
        total, seen = self.count.sum(), self.count > 0
        means = self.sums / self.count.clamp(min=1)[:, None]  # [C, d]
        within = (self.products - self.sums.T @ means) / total
        within.diagonal().add_(self.eps)
        weight = torch.linalg.solve(within, means.T).T  # [C, d]
        bias = (self.count.clamp(min=1) / total).log() - (means * weight).sum(1) / 2
        self.weight.copy_(weight)
        self.bias.copy_(torch.where(seen, bias, UNSEEN))
