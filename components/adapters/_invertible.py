"""A coupling layer and its inverse (NICE)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from assembler.errors import AssemblerError
from components.adapters._bottleneck import Bottleneck


class Coupling(nn.Module):
    """[e1 + F(e2), e2 + G(y1)]: [..., d] -> [..., d]."""

    def __init__(self, width: int, reduction: float, activation: str, init: str) -> None:
        super().__init__()
        if width % 2:
            raise AssemblerError(f"the invertible adapter halves the stream, whose width here is {width}")
        inner = max(1, int(width // 2 // reduction))
        self.f = Bottleneck(width // 2, inner, activation, init)
        self.g = Bottleneck(width // 2, inner, activation, init)

    def forward(self, value: Tensor) -> Tensor:
        first, second = value.chunk(2, -1)
        first = first + self.f(second)
        return torch.cat([first, second + self.g(first)], -1)

    def inverse(self, value: Tensor) -> Tensor:
        """The value that `forward` was given."""
        first, second = value.chunk(2, -1)
        second = second - self.g(first)
        return torch.cat([first - self.f(second), second], -1)


class Inverse(nn.Module):
    """The inverse of a coupling, which holds the weights."""

    def __init__(self, coupling: Borrowed) -> None:
        super().__init__()
        self.coupling = coupling

    def forward(self, value: Tensor) -> Tensor:
        module = self.coupling.module
        assert isinstance(module, Coupling)
        return module.inverse(value)
