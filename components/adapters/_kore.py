"""KORE: a low-rank change whose inputs lie in the null space of what the layer read for old knowledge."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.prepare import Trial

Folded = tuple[Tensor, Tensor | None]


def orthonormal(rows: int, columns: int) -> Tensor:
    """Drawn rows of length one, at right angles: [rows, columns]."""
    return nn.init.orthogonal_(torch.empty(rows, columns))


class Reader(nn.Module):
    """Keeps the covariance X'X [in, in] of what it reads, while `gram` is one."""

    gram: Tensor | None = None

    def noted(self, x: Tensor) -> None:
        if self.gram is not None:
            flat = x.detach().reshape(-1, x.shape[-1]).to(self.gram)
            self.gram.addmm_(flat.T, flat)


class NullSpace(Reader):
    """B A x with A [r, in] frozen and B [out, r], which starts at zero."""

    down: Tensor

    def __init__(self, weight: Tensor, down: Tensor) -> None:
        super().__init__()
        self.register_buffer("down", down)
        self.up = nn.Parameter(torch.zeros(len(weight), len(down)))

    def forward(self, x: Tensor) -> Tensor:
        self.noted(x)
        return F.linear(F.linear(x, self.down), self.up)  # [..., in] -> [..., r] -> [..., out]

    def place(self, weight: Tensor, down: Tensor) -> None:
        """Take the rows of `down` as A."""
        self.down.copy_(down)

    def fold(self, weight: Tensor, bias: Tensor | None) -> Folded:
        return weight + self.up @ self.down, bias


class Projected(Reader):
    """(B A - B0 A0) x, where B A starts as B0 A0 = W U U', the part of W in the null space U [in, r]; A and B learn."""

    down0: Tensor
    up0: Tensor

    def __init__(self, weight: Tensor, down: Tensor) -> None:
        super().__init__()
        up0, down0 = halves(weight, down)
        self.register_buffer("down0", down0)
        self.register_buffer("up0", up0)
        self.down, self.up = nn.Parameter(down0.clone()), nn.Parameter(up0.clone())

    def forward(self, x: Tensor) -> Tensor:
        self.noted(x)
        return F.linear(F.linear(x, self.down), self.up) - F.linear(F.linear(x, self.down0), self.up0)

    def place(self, weight: Tensor, down: Tensor) -> None:
        """Take the projection on the rows of `down`."""
        up0, down0 = halves(weight, down)
        for own, new in ((self.up0, up0), (self.down0, down0), (self.up, up0), (self.down, down0)):
            own.data.copy_(new)

    def fold(self, weight: Tensor, bias: Tensor | None) -> Folded:
        return weight + self.up @ self.down - self.up0 @ self.down0, bias


def halves(weight: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """B [out, r] and A [r, in] with B A = W U U' for U' = `down`, the singular values in equal parts in both."""
    if weight.is_meta:
        return torch.empty(len(weight), len(down)), torch.empty_like(down)
    low = weight.detach().double() @ down.double().T  # W U, [out, r]; U is orthonormal, so that its SVD is W U U' 's
    left, values, right = torch.linalg.svd(low, full_matrices=False)
    root = values.sqrt()
    count = len(down) - len(root)  # fewer outputs than r
    up, rows = F.pad(left * root, (0, count)), F.pad(root[:, None] * right, (0, 0, 0, count))
    return up.to(weight.dtype), (rows @ down.double()).to(weight.dtype)


@torch.no_grad()
def into_null_space(trial: Trial) -> None:
    """Point every insert at the r directions in which the trial's rows put least."""
    from components.adapters._lora import Weight

    inserts = trial.inserts.values()
    readers = {one.at.removesuffix(".out"): one.module for one in inserts if isinstance(one.module, Reader)}
    for site, module in readers.items():
        width = trial.on.shape(site)[0]
        module.gram = torch.zeros(width, width, device=trial.on.parameter.device)
    for _ in trial.losses():
        pass
    for site, module in readers.items():
        gram, module.gram = module.gram, None
        assert gram is not None
        _, directions = torch.linalg.eigh(gram.double())  # ascending
        rank = len(module.down)  # type: ignore[arg-type]
        module.place(Weight(trial.on, site)()[0], directions[:, :rank].T.to(trial.on.parameter.dtype))  # type: ignore[operator]
