"""An image's embedding and those of class names, each changed by the other before they are compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.heads._heads import with_loss


class CrossModalHead(nn.Module):
    """See `head.cross_modal_attention`.

    A name has one key to attend to, the image's, so that what it reads is the image's value whatever its query is.
    """

    names: Tensor

    def __init__(
        self,
        width: int,
        classes: int,
        inner: int,
        heads: int,
        blend: float,
        scale: float,
        dropout: float,
        deep: bool = False,
        layer: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("names", torch.randn(classes, width))
        self.down, self.up = (way(*sizes, inner, deep) for sizes in ((width, inner), (inner, width)))
        self.after = AfterAttention(inner) if layer else None
        self.q, self.k, self.v, self.o = (nn.Linear(inner, inner) for _ in range(4))
        self.heads, self.blend, self.scale, self.dropout = heads, blend, scale, nn.Dropout(dropout)

    def forward(self, labels: Tensor | None, x: Tensor) -> dict[str, Any]:
        image, names = F.normalize(x, dim=-1), F.normalize(self.names, dim=-1)  # [B, d], [C, d]
        seen, read = self.adapted(self.dropout(image), names)
        image = self._blended(image, seen)  # [B, d]
        names = self._blended(names, read)  # [B, C, d]
        logits = self.scale * torch.einsum("bd,bcd->bc", image, names)
        return with_loss(logits, None if labels is None else F.cross_entropy(logits.float(), labels))

    def adapted(self, image: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
        """A(x) [B, d] and A(t_c), the same [B, 1, d] for all names, or where they go on by themselves [B, C, d]."""
        image, names = self.down(image), self.down(names)  # [B, b], [C, b]
        q = self.q(image).unflatten(-1, (self.heads, -1))  # [B, H, b / H]
        k, v = (linear(names).unflatten(-1, (self.heads, -1)) for linear in (self.k, self.v))  # [C, H, b / H]
        scores = torch.einsum("bhd,chd->bhc", q, k) * q.shape[-1] ** -0.5
        seen = torch.einsum("bhc,chd->bhd", scores.softmax(-1), v).flatten(1)  # [B, b]
        own, others = self.o(seen), self.o(self.v(image)).unsqueeze(1)  # [B, b], [B, 1, b]
        if self.after is not None:
            own, others = self.after(image + own), self.after(names + others)  # [B, b], [B, C, b]
        return self.up(own), self.up(others)

    def _blended(self, own: Tensor, new: Tensor) -> Tensor:
        return F.normalize(self.blend * F.normalize(new, dim=-1) + (1 - self.blend) * own, dim=-1)


def way(inputs: int, outputs: int, inner: int, deep: bool) -> nn.Module:
    """A linear, or with `deep` two with ReLU between."""
    if not deep:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, inner), nn.ReLU(), nn.Linear(inner, outputs))


class AfterAttention(nn.Module):
    """LN(y + W_2 relu(W_1 y)) with y = LN(x): what a transformer layer does with the sum of its input and attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = way(width, width, 4 * width, deep=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        return self.norm2(y + self.mlp(y))
