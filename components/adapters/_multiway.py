"""MultiWay-Adapter's choice between its two bottlenecks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BySense(nn.Module):
    """`vision` of the first `split` tokens, and `text` of the others: [B, T, d] -> [B, T, d]."""

    def __init__(self, vision: nn.Module, text: nn.Module, split: int) -> None:
        super().__init__()
        self.vision, self.text, self.split = vision, text, split

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.vision(x[:, : self.split]), self.text(x[:, self.split :])], 1)
