"""Gated attention to learned prompts, beside a layer's own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from assembler.adapters.attention import Attend
from assembler.adapters.host import Borrowed, Heads, Wire
from assembler.ragged import Ragged, parted
from components.projectors._attention import Attention


class Seen:
    """W mean_t(s_t) + b for what the image's node sends: [B, 1, d]."""

    def __init__(self, wire: Wire, project: Borrowed) -> None:
        self.wire, self.project = wire, project

    def __call__(self) -> Tensor:
        sent = self.wire()
        if isinstance(sent, Ragged):
            weights = sent.mask.unsqueeze(-1).to(sent.values.dtype)  # [B, T, 1]
            sent = (sent.values * weights).sum(1) / weights.sum(1).clamp(min=1)
        elif sent.dim() == 3:
            sent = sent.mean(1)
        return self.project(sent).unsqueeze(1)


class Gated(nn.Module, ABC):
    """g * attention to W_k P and W_v P, added to the layer's attention, for the prompts P that `tokens` gives."""

    def __init__(self, heads: Heads, gates: int, squash: bool, projections: tuple[Borrowed, Borrowed]) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(gates))
        self.heads, self.squash, self.projections = heads, squash, projections

    @abstractmethod
    def tokens(self) -> Tensor:
        """P: [1 or B, length, D]."""

    def forward(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, H, T, d], k and v [B, H_kv, S, d] -> [B, H, T, d]."""
        beside = self.beside(attend, q, k)
        return attend(q, k, v) + beside

    def beside(self, attend: Attend, q: Tensor, k: Tensor) -> Tensor:
        """The gated attention to the prompts: [B, H, T, d]."""
        prompts = self.tokens()
        key, value = (self._split(project(prompts), q.shape[0], k.shape[1]) for project in self.projections)
        gate = self.gate.tanh() if self.squash else self.gate
        return attend.free(q, key, value) * gate.reshape(-1, 1, 1)

    def _split(self, value: Tensor, batch: int, groups: int) -> Tensor:
        """[1 or B, P, H_kv d] -> [B, groups, P, d], repeated where the host repeats its keys before it attends."""
        split = value.unflatten(-1, (self.heads.kv, self.heads.size)).transpose(1, 2).expand(batch, -1, -1, -1)
        return split if groups == self.heads.kv else split.repeat_interleave(groups // self.heads.kv, 1)


class Prompts(Gated):
    """Learned prompts, and what is seen added to each."""

    def __init__(
        self,
        heads: Heads,
        width: int,
        length: int,
        gates: int,
        squash: bool,
        projections: tuple[Borrowed, Borrowed],
        seen: Seen | None,
    ) -> None:
        super().__init__(heads, gates, squash, projections)
        self.prompts = nn.Parameter(torch.randn(length, width))
        self.seen = seen

    def tokens(self) -> Tensor:
        return self.prompts.unsqueeze(0) if self.seen is None else self.prompts + self.seen()


class Resampled(Gated):
    """Prompts W attention(Q, s) that learned queries Q [length, d_s] gather from the tokens s of another node."""

    def __init__(
        self,
        heads: Heads,
        width: int,
        length: int,
        squash: bool,
        projections: tuple[Borrowed, Borrowed],
        wire: Wire,
        source: int,
        source_heads: int,
    ) -> None:
        super().__init__(heads, heads.query, squash, projections)
        self.queries = nn.Parameter(torch.randn(length, source))
        self.gather = Attention(source, source_heads, bias=False)
        self.project = nn.Linear(source, width, bias=False)
        self.wire = wire

    def tokens(self) -> Tensor:
        sent, mask = parted(self.wire())  # [B, S, d_s]
        queries = self.queries.expand(sent.shape[0], -1, -1)
        return self.project(self.gather(queries, sent, mask))
