"""The OpAmp adapter: attention as the difference of two score maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.attention import Attend
from assembler.adapters.host import Heads


class Residual(nn.Module):
    """W2 gelu(W1 dropout(x)) over all heads together: [B, H, T, d] -> [B, H, T, d]; W2 starts at zero."""

    def __init__(self, heads: int, size: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(heads * size, inner, bias=False)
        self.up = nn.Linear(inner, heads * size, bias=False)
        self.dropout, self.heads = nn.Dropout(dropout), heads
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        times = x.shape[1] // self.heads  # where the host repeats its keys before it attends
        own = x[:, ::times].transpose(1, 2).flatten(2)  # [B, T, H d]
        change = self.up(F.gelu(self.down(self.dropout(own))))
        heads = change.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return heads if times == 1 else heads.repeat_interleave(times, 1)


class OpAmp(nn.Module):
    """(A_d (M1 - M2) + A_c / 2 (M1 + M2)) V for the score maps M of two changed pairs of queries and keys."""

    def __init__(self, heads: Heads, inner: int, scale: float, gains: tuple[float, float], dropout: float) -> None:
        super().__init__()
        self.queries = nn.ModuleList([Residual(heads.query, heads.size, inner, dropout) for _ in range(2)])
        self.keys = nn.ModuleList([Residual(heads.kv, heads.size, inner, dropout) for _ in range(2)])
        self.scale, (self.difference, self.common) = scale, gains

    def forward(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        one, two = (
            attend(q + self.scale * on_q(q), k + self.scale * on_k(k), v)
            for on_q, on_k in zip(self.queries, self.keys, strict=True)
        )  # each [B, H, T, d]: a map times V, which is linear in the map
        return self.difference * (one - two) + (self.common / 2) * (one + two)
