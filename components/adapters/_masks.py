"""The mask of the tokens, for adapters that look across tokens by themselves."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from assembler.adapters.host import Host


class KeepMask(nn.Module):
    """Keeps the mask [B, T] that the host is called with, True where a token is real; None where it has none."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Tensor | None = None

    def forward(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        mask = kwargs.get("attention_mask")
        self.mask = None if mask is None else mask.bool()
        return call(*args, **kwargs)


def keep_mask(on: Host) -> KeepMask:
    """One that hears the host's calls, where they have a mask at all."""
    kept = KeepMask()
    if "attention_mask" in inspect.signature(type(on.root).forward).parameters:
        on.around(kept, "")
    return kept
