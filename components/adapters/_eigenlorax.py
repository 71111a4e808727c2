"""EigenLoRAx: a low-rank change within the main directions of other LoRAs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.files import load_adapter
from assembler.adapters.prepare import Trial
from assembler.errors import AssemblerError
from assembler.weights import fetch, parse_source


class Loadings(nn.Module):
    """V_b C_b (V_a C_a)' x with bases V_a [in, K] and V_b [out, K] that stay, and loadings C_a and C_b [K, r]."""

    basis_a: Tensor
    basis_b: Tensor

    def __init__(self, bases: tuple[Tensor, Tensor], rank: int, init: str) -> None:
        super().__init__()
        self.register_buffer("basis_a", bases[0])
        self.register_buffer("basis_b", bases[1])
        count = bases[0].shape[1]
        self.loading_a = nn.Parameter(torch.rand(count, rank) - 0.5)
        self.loading_b = nn.Parameter(torch.zeros(count, rank) if init == "zero" else torch.rand(count, rank) - 0.5)

    def factors(self) -> tuple[Tensor, Tensor]:
        """A [r, in] and B [out, r]."""
        return (self.basis_a @ self.loading_a).T, self.basis_b @ self.loading_b

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.factors()
        return F.linear(F.linear(x, down), up)  # [..., in] -> [..., r] -> [..., out]

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        down, up = self.factors()
        return weight + up @ down, bias


class Factors(nn.Module):
    """B A x with A [r, in] and B [out, r] that learn by themselves and only start as loadings in bases say."""

    def __init__(self, loadings: Loadings) -> None:
        super().__init__()
        self.down, self.up = (nn.Parameter(factor.detach().clone()) for factor in loadings.factors())

    @torch.no_grad()
    def start(self, loadings: Loadings) -> None:
        """Set A and B to the factors of other loadings."""
        for own, factor in zip((self.down, self.up), loadings.factors(), strict=True):
            own.copy_(factor)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.down), self.up)  # [..., in] -> [..., r] -> [..., out]

    def fold(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.up @ self.down, bias


def drawn_basis(width: int, count: int) -> Tensor:
    """`count` drawn directions at right angles: [width, count]."""
    return nn.init.orthogonal_(torch.empty(width, count))


def main_directions(factors: Sequence[Tensor], count: int) -> Tensor:
    """The `count` main left singular vectors of factors [d, r] beside each other, centred: [d, count].

    Where they span fewer directions, drawn ones at right angles fill up the rest.
    """
    stacked = torch.cat([factor.detach().double() for factor in factors], 1)
    centred = stacked - stacked.mean(1, keepdim=True)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    known = left[:, : min(count, int((values > 1e-6 * values[0]).sum()))]
    rest = torch.randn(len(known), count - known.shape[1], dtype=known.dtype, device=known.device)
    for _ in range(2):  # once more for what rounding leaves
        rest = rest - known @ (known.T @ rest)
    filled = torch.cat([known, torch.linalg.qr(rest).Q], 1)
    return filled.to(factors[0].dtype)


@torch.no_grad()
def fit(trial: Trial, sources: Sequence[str], made: Callable[[int, int], Loadings], project: bool) -> None:
    """Set the bases from the LoRAs in the folders that `sources` name, and with `project` the loadings from the first.

    Where factors learn, they are set to what the loadings that `made` gives for two widths make of such bases.

    Raises:
        AssemblerError: there are none, one is no LoRA, or lacks a site.
    """
    if not sources:
        raise AssemblerError(
            "there are no `loras` to find directions in; name their folders, such as file:adapters/one"
        )
    found = [loras_in(trial, source) for source in sources]
    for insert in trial.inserts.values():
        missing = next((source for source, has in zip(sources, found, strict=True) if insert.at not in has), None)
        if missing is not None:
            raise AssemblerError(
                f"{missing} changes nothing at {insert.at}; set `sites` and `layers` to those of the LoRAs"
            )
        module, loras = insert.module, [has[insert.at] for has in found]
        if isinstance(module, Factors):
            loadings = made(module.down.shape[1], module.up.shape[0])
            span(loadings, loras, project)
            module.start(loadings)
        elif isinstance(module, Loadings):
            span(module, loras, project)


def span(module: Loadings, loras: Sequence[tuple[Tensor, Tensor]], project: bool) -> None:
    """Set the bases to the main directions of LoRAs at one place, and with `project` the loadings to the first's."""
    for own, loading, factors in (
        (module.basis_a, module.loading_a, [a for a, _ in loras]),
        (module.basis_b, module.loading_b, [b for _, b in loras]),
    ):
        own.copy_(main_directions(factors, own.shape[1]))
        if project:
            if factors[0].shape[1] != loading.shape[1]:
                raise AssemblerError(f"`rank` is {loading.shape[1]}, and the first LoRA's {factors[0].shape[1]}")
            loading.copy_(own.T @ factors[0])


def loras_in(trial: Trial, source: str) -> dict[str, tuple[Tensor, Tensor]]:
    """A' [in, r] and s B [out, r] at each point that a LoRA's file changes."""
    from components.adapters._lora import LowRank

    name = f"{trial.name}_source"
    load_adapter(trial.host, fetch(parse_source(source), trial.base), name)
    modules = {insert.at: insert.module for insert in trial.book.inserts(name).values()}
    trial.book.remove(name)
    found = {}
    for at, module in modules.items():
        if type(module) is not LowRank:
            raise AssemblerError(f"{source} is no plain LoRA on linears, but holds a {type(module).__name__}")
        found[at] = (module.lora_A.weight.T, module.lora_B.weight * module.scale)
    return found
