"""LoTR's modules: two outer factors for all layers, a small core for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed


class Factors(nn.Module):
    """L [out, r] and R [r, in], which the layers of one kind share; buffers where only the cores learn."""

    def __init__(self, left: Tensor, right: Tensor, fixed: bool) -> None:
        super().__init__()
        for name, value in (("left", left), ("right", right)):
            if fixed:
                self.register_buffer(name, value)
            else:
                self.register_parameter(name, nn.Parameter(value))


class Core(nn.Module):
    """s L M R x, with M [r, r] of this layer: [..., in] -> [..., out]."""

    def __init__(self, factors: Factors, core: Tensor, scale: float) -> None:
        super().__init__()
        self.factors, self.scale = Borrowed(factors), scale
        self.core = nn.Parameter(core)

    def forward(self, x: Tensor) -> Tensor:
        shared = self.factors.module
        inner = nn.functional.linear(x, self.core @ shared.right)  # type: ignore[operator]
        return nn.functional.linear(inner, shared.left) * self.scale  # type: ignore[arg-type]

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """W + s L M R."""
        shared = self.factors.module
        return weight + shared.left @ self.core @ shared.right * self.scale, bias  # type: ignore[operator]


def tucker(weights: Sequence[Tensor], rank: int) -> tuple[Tensor, Tensor]:
    """L and R with orthonormal columns and rows: the main directions of the outputs and inputs of [n, out, in].

    They are the outer factors of the higher-order SVD of the stacked weights.
    """
    stacked = torch.stack([weight.detach().float() for weight in weights])  # [n, out, in]
    outer = torch.einsum("noi,npi->op", stacked, stacked)
    inner = torch.einsum("noi,noj->ij", stacked, stacked)
    left, right = (torch.linalg.eigh(gram).eigenvectors[:, -rank:].flip(1) for gram in (outer, inner))
    return left.contiguous(), right.T.contiguous()
