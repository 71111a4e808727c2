"""The convolution module of a Conformer, as a change of what a sub-layer adds."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class ConformerConv(nn.Module):
    """P2 silu(BN(depthwise(glu(P1 x)))) along the tokens: [B, T, d] -> [B, T, d]."""

    def __init__(self, width: int, channels: int, kernel: int, zero: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(width, 2 * channels)
        self.filters = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.BatchNorm1d(channels)
        self.outer = nn.Linear(channels, width)
        if zero:
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.glu(self.inner(x), -1).transpose(1, 2)  # [B, r, T]
        filtered = F.silu(self.norm(self.filters(inner)))
        return self.outer(filtered.transpose(1, 2))
