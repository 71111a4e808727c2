"""P-Adapters: what a prompt's embeddings are rewritten as, and the tokens that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed


class BothWays(nn.Module):
    """Two layers of an LSTM that reads the real tokens of [B, T, d] from either end: [B, T, d], d / 2 wide each way.

    The tokens are brought together at the left before, and what is read backwards is turned by its own length, so that
    padding, wherever it is, comes after all that is real.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.onward, self.back = (
            nn.ModuleList(nn.LSTM(width, width // 2, batch_first=True) for _ in range(2)) for _ in range(2)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        places = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])  # [B, T]
        if mask is None:
            order, turned = places, places.flip(1)
        else:
            order = (~mask * x.shape[1] + places).argsort(1)
            count = mask.sum(1, keepdim=True)
            turned = torch.where(places < count, count - 1 - places, places)
        x = moved(x, order)
        for onward, back in zip(self.onward, self.back, strict=True):
            x = torch.cat([onward(x)[0], moved(back(moved(x, turned))[0], turned)], -1)
        return moved(x, order.argsort(1))


def moved(x: Tensor, order: Tensor) -> Tensor:
    """The tokens of [B, T, d] in the order of [B, T]."""
    return x.gather(1, order.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Rewrite(nn.Module):
    """W LSTM(E) + b, except where the token's id is one of `keep`."""

    def __init__(self, width: int, keep: list[int], mask: Borrowed) -> None:
        super().__init__()
        self.lstm, self.out = BothWays(width), nn.Linear(width, width)
        self.keep, self.mask = keep, mask

    def forward(self, embeds: Tensor, ids: Tensor) -> Tensor:
        new = self.out(self.lstm(embeds, self.mask.module.mask))  # type: ignore[arg-type]
        kept = torch.zeros_like(ids, dtype=torch.bool)
        for one in self.keep:
            kept = kept | (ids == one)
        return torch.where(kept.unsqueeze(-1), embeds, new)


class Prefix(nn.Module):
    """Calls the host on [P; E] with P = W_2 relu(W_1 max_t(LSTM(E)_t)), [B, P, d]; answers for E alone."""

    def __init__(self, width: int, length: int, embed: Borrowed) -> None:
        super().__init__()
        self.lstm, self.embed, self.length = BothWays(width), embed, length
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, length * width)

    def forward(self, call: Callable[..., Any], input_ids: Tensor, **kwargs: Any) -> Any:
        embeds, mask = self.embed(input_ids), kwargs.get("attention_mask")  # [B, T, d], [B, T]
        read = self.lstm(embeds, None if mask is None else mask.bool())
        if mask is not None:
            read = read.masked_fill(~mask.bool().unsqueeze(-1), torch.finfo(read.dtype).min)
            kwargs["attention_mask"] = F.pad(mask, (self.length, 0), value=1)
        made = self.outer(self.inner(read.amax(1)).relu()).unflatten(-1, (self.length, -1))
        return self._own(call(inputs_embeds=torch.cat([made, embeds], 1), **kwargs), input_ids.shape[1])

    def _own(self, found: Any, tokens: int) -> Any:
        """What the host gives, without P in any of its states."""
        if isinstance(found, Tensor):
            return found[:, self.length :] if found.dim() > 2 and found.shape[1] == self.length + tokens else found
        if isinstance(found, tuple):
            return tuple(self._own(one, tokens) for one in found)
        return type(found)(**{key: self._own(one, tokens) for key, one in found.items()})
