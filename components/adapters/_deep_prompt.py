"""A layer with learned tokens in front of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.tap import first_of, with_first


class Prompted(nn.Module):
    """Calls the layer on [P; X], or on the X that has them in front; `last` takes them off what it gives."""

    def __init__(self, width: int, length: int, first: bool, last: bool) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(length, width)) if first else None
        if self.prompts is not None:
            nn.init.uniform_(self.prompts, -((3 / width) ** 0.5), (3 / width) ** 0.5)
        self.length, self.last = length, last

    def forward(self, call: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.prompts is not None:
            x = torch.cat([self.prompts.expand(x.shape[0], -1, -1), x], 1)  # [B, P + T, d]
        own = x.shape[1] - self.length
        args = tuple(self._seen(value, own) for value in args)
        output = call(x, *args, **{key: self._seen(value, own) for key, value in kwargs.items()})
        return with_first(output, first_of(output)[:, self.length :]) if self.last else output

    def _seen(self, value: Any, own: int) -> Any:
        """An attention mask [B, 1, T or 1, T] in which all see the learned tokens; anything else as it is."""
        if not isinstance(value, Tensor) or value.dim() != 4 or value.shape[-1] != own:
            return value
        shown = 1.0 if value.dtype == torch.bool else 0.0
        rows = self.length if value.shape[-2] == own else 0
        value = torch.cat([value[..., :1, :].expand(-1, -1, rows, -1), value], -2)
        return F.pad(value, (self.length, 0), value=shown)
