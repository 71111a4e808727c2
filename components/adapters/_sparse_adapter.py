"""Masks over the matrices of an adapter, and the scores by which they are chosen before training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from assembler.adapters.prepare import Trial
from assembler.errors import AssemblerError


class Mask(nn.Module):
    """W * m for a fixed m of zeros and ones: what is masked out takes no gradient."""

    mask: Tensor

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones_like(like, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


class Masked(NamedTuple):
    """A matrix of an adapter, its mask, and the adapter's module that it is of."""

    weight: nn.Parameter
    mask: Mask
    of: nn.Module


def keep(masked: Sequence[Masked], scores: Iterable[Tensor], density: float) -> None:
    """Keep the share `density` of all entries together, those with the largest scores.

    Raises:
        AssemblerError: no score is above another.
    """
    flat = torch.cat([score.flatten() for score in scores])
    if not (flat != flat[0]).any():
        raise AssemblerError(
            "every score is the same, as where one of two matrices starts at zero; let both start elsewhere, such as "
            "with `init: bert`"
        )
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.topk(round(density * len(flat))).indices] = True
    for (weight, mask, _), own in zip(masked, kept.split([one.weight.numel() for one in masked]), strict=True):
        mask.mask.copy_(own.view_as(weight))


def synflow(masked: Sequence[Masked]) -> list[Tensor]:
    """|W| dR/d|W| for R = 1' |W_n| ... |W_1| 1, in each of the adapter's modules."""
    groups: dict[nn.Module, list[nn.Parameter]] = {}
    for one in masked:
        groups.setdefault(one.of, []).append(one.weight)
    found: dict[nn.Parameter, Tensor] = {}
    for module, weights in groups.items():
        sizes = [tuple(w.shape) for w in weights]
        if any(len(size) != 2 for size in sizes) or any(a[0] != b[1] for a, b in pairwise(sizes)):
            raise AssemblerError(f"`score: synflow` takes chains of matrices, and {type(module).__name__} is none")
        absolute = [w.detach().abs().requires_grad_(True) for w in weights]
        with torch.enable_grad():
            value = torch.ones(sizes[0][1], dtype=absolute[0].dtype, device=absolute[0].device)
            for matrix in absolute:
                value = matrix @ value
            gradients = torch.autograd.grad(value.sum(), absolute)
        found |= {w: a.detach() * g for w, a, g in zip(weights, absolute, gradients, strict=True)}
    return [found[one.weight] for one in masked]


def by_gradient(trial: Trial, masked: Sequence[Masked], curvature: bool) -> list[Tensor]:
    """|W dL/dW| (SNIP), or with `curvature` W (H g) for g = dL/dW and its Hessian H (GraSP), on the trial's rows."""
    weights = [one.weight for one in masked]
    for weight in weights:
        weight.requires_grad_(True)
    trial.backward()
    first = [torch.zeros_like(w) if w.grad is None else w.grad.clone() for w in weights]
    if not curvature:
        scores = [(w * g).abs().detach() for w, g in zip(weights, first, strict=True)]
    else:
        trial.host.zero_grad()
        with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
            for loss in trial.losses():
                gradients = torch.autograd.grad(loss, weights, create_graph=True)
                torch.stack([(a * b).sum() for a, b in zip(gradients, first, strict=True)]).sum().backward()
        scores = [(w * (0 if w.grad is None else w.grad)).detach() for w in weights]
    for weight in weights:
        weight.grad = None
    return scores
