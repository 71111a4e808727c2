"""InRa: one more layer before the first, and the mix of what the LM says with and without it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from assembler.adapters.tap import first_of, with_first
from components.adapters._streams import extra, twin


class Inserted(nn.Module):
    """A copy of the host's first layer, run before it; its two output projections start at zero, and so as x -> x.

    Attributes:
        on: whether it runs; without it this is the host.
    """

    def __init__(self, layer: nn.Module, outputs: list[str]) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)
        for module in self.layer.modules():
            module.__dict__.pop("forward", None)  # an adapter on the host is not one on its copy
        for name in outputs:
            linear: Any = self.layer.get_submodule(name)
            nn.init.zeros_(linear.weight)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        self.on = True

    def forward(self, call: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.on:
            own, named = extra(args, kwargs)
            x = first_of(self.layer(x, *own, **named))
        return call(x, *args, **kwargs)


class TwoStreams(nn.Module):
    """z = (1 - lam) z_without + lam z_with, each stream with its own cache. One of them is enough at lam 0 and 1.

    Attributes:
        lam: how far to go; it may be set between any two calls.
    """

    def __init__(self, inserted: Inserted, lam: float) -> None:
        super().__init__()
        self.inserted, self.lam = Borrowed(inserted), lam

    def forward(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        inserted: Any = self.inserted.module
        if self.lam == 1 or self.training:  # it learns by itself
            return call(*args, **kwargs)
        inserted.on = False
        try:
            own, named = twin(args, kwargs)
            without = call(*own, **named)
        finally:
            inserted.on = True
        if self.lam == 0:
            return without
        output = call(*args, **kwargs)
        return with_first(output, torch.lerp(first_of(without), first_of(output), self.lam))
