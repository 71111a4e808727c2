"""X-LoRA: a head reads what the host makes of the input without adapters, and says how to mix them in a second run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from components.adapters._streams import twin


class Scalings(nn.Module):
    """softmax(head(H) / temperature) over the adapters: [B, T, d] -> [B, T, layers or 1, N].

    Attributes:
        now: the scalings of this run; None while the host runs without adapters.
        hidden: the last hidden states of the first run.
    """

    def __init__(
        self, width: int, layers: int, count: int, depth: int, inner: int, dropout: float, temperature: float, top: int
    ) -> None:
        super().__init__()
        sizes = [width, *[inner] * (depth - 1)]
        steps: list[nn.Module] = []
        for before, after in pairwise(sizes):
            steps += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.head = nn.Sequential(*steps, nn.Linear(sizes[-1], layers * count))
        self.layers, self.count, self.temperature, self.top = layers, count, temperature, top
        self.now: Tensor | None = None
        self.hidden: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        scores = self.head(hidden).unflatten(-1, (self.layers, self.count)).float() / self.temperature
        if 0 < self.top < self.count:
            kept = scores.topk(self.top, -1).indices
            mask = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, kept, True)
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(-1).to(hidden.dtype)


class Scaled(nn.Module):
    """The gates of one point: this layer's scalings, and one number for all in the first run."""

    def __init__(self, scalings: Borrowed, layer: int, count: int, first: float = 0.0) -> None:
        super().__init__()
        self.scalings, self.layer, self.count, self.first = scalings, layer, count, first

    def gates(self, x: Tensor, *_: Tensor) -> Tensor:
        now: Any = self.scalings.module.now
        return x.new_full((*x.shape[:-1], self.count), self.first) if now is None else now[..., self.layer, :]


class Capture(nn.Module):
    """Keeps what the host's last norm gives."""

    def __init__(self, scalings: Borrowed) -> None:
        super().__init__()
        self.scalings = scalings

    def forward(self, call: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        out = call(*args, **kwargs)
        self.scalings.module.hidden = out  # type: ignore[assignment]
        return out


class TwoRuns(nn.Module):
    """Runs the host with all adapters alike and without gradients, lets the head read its states, and runs it with them
    mixed."""

    def __init__(self, scalings: Borrowed) -> None:
        super().__init__()
        self.scalings = scalings

    def forward(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        scalings: Any = self.scalings.module
        scalings.now = None
        own, named = twin(args, kwargs)
        with torch.no_grad():
            call(*own, **named)
        scalings.now = scalings(scalings.hidden)
        out = call(*args, **kwargs)
        scalings.now = scalings.hidden = None
        return out
