"""The module of `projector.tversky_projection`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.projectors._layers import opened


class TverskyLayer(nn.Module):
    """Likeness of tokens to learned prototypes over learned features."""

    def __init__(
        self, inner: int, outer: int, features: int, intersection: str, difference: str, by: str, form: str
    ) -> None:
        super().__init__()
        self.intersection, self.difference, self.by, self.form = intersection, difference, by, form
        self.features, self.prototypes = (
            nn.Parameter(torch.rand(features, inner)),
            nn.Parameter(torch.rand(outer, inner)),
        )
        self.theta = nn.Parameter(torch.tensor(1.0)) if form == "contrast" else None
        self.alpha, self.beta = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = opened(x)[0]  # [B, T, in]
        return self.likeness(x @ self.features.T, self.prototypes @ self.features.T)  # [B, T, out]

    def likeness(self, a: Tensor, b: Tensor) -> Tensor:
        """Of each object to each prototype, by their features' strengths: a [..., N, K], b [C, K] -> [..., N, C]."""
        m, q = (a > 0).to(a.dtype), (b > 0).to(b.dtype)
        own_a, own_b = (a * m) @ (1 - q).T, (1 - m) @ (b * q).T  # what only one of the two has
        if self.by == "sum":
            pairs = (a * m) @ q.T, m @ (b * q).T  # [..., N, C]: strengths of shared features, summed up
            shared = pairs[0] > 0
        else:
            pairs = a.unsqueeze(-2).expand(*a.shape[:-1], *b.shape), b.expand(*a.shape[:-1], *b.shape)  # [..., N, C, K]
            shared = (a > 0).unsqueeze(-2) & (b > 0)
        both = (
            (a * m) @ (b * q).T
            if self.intersection == "product"
            else self._summed(_common(self.intersection, *pairs), shared)
        )
        if self.difference == "substractmatch":
            own_a = own_a + self._summed(F.relu(pairs[0] - pairs[1]), shared)
            own_b = own_b + self._summed(F.relu(pairs[1] - pairs[0]), shared)
        if self.theta is None:
            return both / (both + self.alpha * own_a + self.beta * own_b + 1)
        return self.theta * both - self.alpha * own_a - self.beta * own_b

    def _summed(self, values: Tensor, shared: Tensor) -> Tensor:
        values = torch.where(shared, values, 0)
        return values if self.by == "sum" else values.sum(-1)


def _common(kind: str, a: Tensor, b: Tensor) -> Tensor:
    """What two strengths have in common; where either is not positive the number means nothing."""
    if kind == "min":
        return torch.minimum(a, b)
    if kind == "max":
        return torch.maximum(a, b)
    if kind == "mean":
        return (a + b) / 2
    if kind == "gmean":
        product = a * b
        return torch.where(product > 0, product, 1).sqrt()  # a root's slope at zero is no number
    weight = (b - a).sigmoid()  # e^-a / (e^-a + e^-b)
    return weight * a + (1 - weight) * b
