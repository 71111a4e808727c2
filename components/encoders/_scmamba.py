"""The module of `encoder.scmamba`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.encoders._genes import SPREAD, MaskedValues
from components.encoders._selective_scan import selective_scan
from components.encoders._states import LayerMix

KERNEL = 4
STEPS = (1e-3, 1e-1)
"""Time steps at first, drawn evenly in their logarithm."""


class Direction(nn.Module):
    """What one direction of a mixer has of its own: [B, L, di] -> the arguments of its recurrence."""

    def __init__(self, inner: int, state: int, rank: int) -> None:
        super().__init__()
        self.state, self.rank = state, rank
        self.conv = nn.Conv1d(inner, inner, KERNEL, groups=inner, padding=KERNEL - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.arange(1, state + 1, dtype=torch.float32).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        with torch.no_grad():
            low, high = map(math.log, STEPS)
            dt = (torch.rand(inner) * (high - low) + low).exp()
            self.dt_proj.bias.copy_(dt + (-(-dt).expm1()).log())  # softplus of it is dt

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]]).transpose(1, 2)  # [B, L, di], nothing from later
        dt, b, c = self.x_proj(x).split([self.rank, self.state, self.state], dim=-1)
        return x, F.softplus(self.dt_proj(dt)), b, c


class Mixer(nn.Module):
    """Bidirectional Mamba, version 2: one projection in and one out, all between them twice. [B, L, d] -> [B, L, d]."""

    def __init__(self, width: int, inner: int, state: int) -> None:
        super().__init__()
        rank = math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.ahead = Direction(inner, state, rank)
        self.back = Direction(inner, state, rank)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        x, z = self.in_proj(u).chunk(2, dim=-1)  # [B, L, di] each
        pairs = zip(self.ahead(x), self.back(x.flip(1)), strict=True)
        inputs = [torch.stack(pair).permute(2, 0, 1, 3).contiguous() for pair in pairs]  # [L, 2, B, di or N]
        a = -torch.stack([self.ahead.A_log, self.back.A_log]).exp().unsqueeze(1)  # [2, 1, di, N]
        skip = torch.stack([self.ahead.D, self.back.D]).unsqueeze(1)  # [2, 1, di]
        y = selective_scan(inputs[0], inputs[1], a, inputs[2], inputs[3]) + skip * inputs[0]  # [L, 2, B, di]
        both = y[:, 0] + y[:, 1].flip(0)  # [L, B, di]
        return self.out_proj(both.transpose(0, 1) * F.silu(z))


class Block(nn.Module):
    """x <- x + mixer(norm(x)); the residual x stays in float32."""

    def __init__(self, width: int, inner: int, state: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.mixer = Mixer(width, inner, state)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mixer(self.norm(x.to(self.norm.weight.dtype))).float()


class ScMamba(MaskedValues):
    """Expression [B, G] -> tokens [B, G, d] or, from three CLS positions, an embedding [B, 3 d]."""

    def __init__(
        self,
        genes: int,
        width: int,
        depth: int,
        inner: int,
        state: int,
        layer: int | None,
        mix: bool,
        pooled: bool,
        rates: tuple[float, float] | None,
    ) -> None:
        super().__init__(width, rates)
        self.value = nn.Linear(1, width)
        self.gene = nn.Embedding(-(-genes // 8) * 8, width)
        nn.init.normal_(self.gene.weight, std=SPREAD)
        self.layers = nn.ModuleList([Block(width, inner, state) for _ in range(depth)])
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.genes, self.layer = genes, layer
        self.mix = LayerMix(depth + 1) if mix else None
        self.cls = nn.Parameter(torch.randn(width) * SPREAD) if pooled else None

    def forward(self, expression: Tensor) -> Tensor:
        values, hidden = self.hide(self.value(expression.unsqueeze(-1)), expression)  # [B, G, d], [B, G]
        x = self._read(self._with_cls(values + self.gene.weight[: self.genes]))
        places = self._cls_places()
        if hidden is not None:
            own = [i for i in range(x.shape[1]) if i not in places]
            self.guess(x[:, own], expression, hidden)
        return x[:, places].flatten(1) if places else x

    def _cls_places(self) -> list[int]:
        """Where the CLS vectors stand: at the start, in the middle, at the end."""
        return [] if self.cls is None else [0, self.genes // 2 + 1, self.genes + 2]

    def _with_cls(self, x: Tensor) -> Tensor:
        if self.cls is None:
            return x
        cls, half = self.cls.expand(x.shape[0], 1, -1), self.genes // 2
        return torch.cat([cls, x[:, :half], cls, x[:, half:], cls], dim=1)

    def _read(self, x: Tensor) -> Tensor:
        states, stream = [x], x.float()
        for block in self.layers[: None if self.layer is None else self.layer + 1]:
            stream = block(stream)
            states.append(stream.to(x.dtype))
        if self.layer is None:
            states[-1] = self.norm(states[-1])
        return states[-1] if self.mix is None else self.mix(states)
