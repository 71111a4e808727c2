"""Bottlenecks of parametrised hypercomplex matrices: sums of Kronecker products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from components.adapters._bottleneck import ACTIVATIONS


class Rules(nn.Module):
    """A_i, [n, n, n], which all layers share."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.rules = nn.Parameter(torch.randn(n, n, n) * 1e-4)

    def forward(self) -> Tensor:
        return self.rules


class Factors(nn.Module):
    """x W + b with W = sum_i A_i (x) (s_i t_i): [..., in] -> [..., out]."""

    def __init__(self, inputs: int, outputs: int, n: int, rank: int) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.empty(n, inputs // n, rank))
        self.right = nn.Parameter(torch.empty(n, rank, outputs // n))
        self.bias = nn.Parameter(torch.zeros(outputs))
        for factor in (self.left, self.right):
            nn.init.normal_(factor, std=(2 / (factor.shape[1] + factor.shape[2])) ** 0.5)

    def forward(self, x: Tensor, rules: Tensor) -> Tensor:
        products = self.left @ self.right  # [n, in / n, out / n]
        weight = torch.einsum("iab,ipq->apbq", rules, products).flatten(2, 3).flatten(0, 1)  # [in, out]
        return x @ weight + self.bias


class Kronecker(nn.Module):
    """up(f(down(x))): [B, T, d] -> [B, T, d]."""

    def __init__(self, rules: Borrowed, width: int, inner: int, n: int, rank: int, activation: str) -> None:
        super().__init__()
        self.rules = rules
        self.down, self.up = Factors(width, inner, n, rank), Factors(inner, width, n, rank)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        rules = self.rules()
        return self.up(self.activation(self.down(x, rules)), rules)
