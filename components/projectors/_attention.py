"""Attention and the blocks made of it, shared by the projectors that look across tokens."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """softmax(q k^T / sqrt(D / heads)) v of x [B, Q, width] over context [B, K, ...], D wide inside -> [B, Q, width].

    A sample whose keys are all padding attends to all of them: its keys are zeros by then, and no number is lost.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int | None = None,
        context: int | None = None,
        bias: bool = True,
        out: bool = True,
    ) -> None:
        super().__init__()
        inner, context = inner or width, context or width
        self.heads = heads
        self.q = nn.Linear(width, inner, bias=bias)
        self.k = nn.Linear(context, inner, bias=bias)
        self.v = nn.Linear(context, inner, bias=bias)
        self.o = nn.Linear(inner, width, bias=bias) if out else nn.Identity()

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.q(x), self.k(context), self.v(context))
        )
        keys = None
        if mask is not None:  # [B, 1, Q, K]: onnxruntime's Attention does not stretch a mask along its queries
            keys = some(mask)[:, None, None].expand(-1, -1, x.shape[1], -1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=keys)  # [B, heads, Q, D / heads]
        return self.o(y.transpose(1, 2).flatten(2))


def some(mask: Tensor) -> Tensor:
    """The mask [B, K] with a row that has nothing set to everything, since a softmax over nothing is no number."""
    return mask | ~mask.any(-1, keepdim=True)


def feed_forward(width: int, hidden: int, bias: bool = True) -> nn.Sequential:
    """W_2 gelu(W_1 x), width -> hidden -> width."""
    return nn.Sequential(nn.Linear(width, hidden, bias=bias), nn.GELU(), nn.Linear(hidden, width, bias=bias))


class Block(nn.Module):
    """x <- x + attention(norm(x)), then x <- x + feed_forward(norm(x)): a layer of a bidirectional transformer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = feed_forward(width, hidden)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, mask)  # [B, T, D]
        return x + self.mlp(self.norm2(x))
