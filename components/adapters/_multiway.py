"""MultiWay-Adapter's choice between its two bottlenecks, and an enhancer that another host has too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from assembler.errors import AssemblerError


class BySense(nn.Module):
    """`vision` of the first `split` tokens, and `text` of the others: [B, T, d] -> [B, T, d]."""

    def __init__(self, vision: nn.Module, text: nn.Module, split: int) -> None:
        super().__init__()
        self.vision, self.text, self.split = vision, text, split

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.vision(x[:, : self.split]), self.text(x[:, self.split :])], 1)


class Lent(nn.Module):
    """The enhancer of the same layer of another adapter, whose it stays: [B, T, d] -> [B, T, d]."""

    lender: Borrowed | None = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        if self.lender is None:
            raise AssemblerError("the enhancer of another adapter is shared, which only a whole graph brings together")
        return self.lender(x)


def lend(lender: dict[str, nn.Module], borrower: dict[str, nn.Module], name: str) -> None:
    """Let the layers of one adapter have the enhancers of another's, both by the layer's number.

    Raises:
        AssemblerError: the other has none there, or one of another width.
    """
    for layer, module in borrower.items():
        if not isinstance(module, Lent):
            continue
        other: Any = lender.get(layer)
        if other is None or isinstance(other, Lent) or other.up.out_features != module.width:
            raise AssemblerError(f"`share: {name}` has no enhancer {module.width} wide in layer {layer}; leave it out")
        module.lender = Borrowed(other)
