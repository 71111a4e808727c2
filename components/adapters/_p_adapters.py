"""P-Adapters: what a prompt's embeddings are rewritten as, and the tokens that are made of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed, Wire
from assembler.ragged import masked_mean


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
    """W LSTM(E) + b, except where the token's id is one of `keep`, or it is of the subject."""

    def __init__(self, width: int, keep: list[int], mask: Borrowed, subject: Subject) -> None:
        super().__init__()
        self.lstm, self.out = BothWays(width), nn.Linear(width, width)
        self.keep, self.mask, self.subject = keep, mask, subject

    def forward(self, embeds: Tensor, ids: Tensor) -> Tensor:
        new = self.out(self.lstm(embeds, self.mask.module.mask))  # type: ignore[arg-type]
        first, end = self.subject(ids)  # [B, 1] each
        places = torch.arange(ids.shape[1], device=ids.device)
        kept = (places >= first) & (places < end)
        for one in self.keep:
            kept = kept | (ids == one)
        return torch.where(kept.unsqueeze(-1), embeds, new)


class Subject:
    """Where each row's subject begins and where it has ended, counted in tokens: [B, 1] each, -1 where it is not told.

    Args:
        first: the wire with the number of its first token.
        last: the wire with that of its last.
    """

    def __init__(self, first: Wire, last: Wire) -> None:
        self.first, self.last = first, last

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        first, last = (wire().to(ids.device).expand(ids.shape[0])[:, None] for wire in (self.first, self.last))
        told = (first >= 0) & (last >= first)
        return torch.where(told, first, -1), torch.where(told, last + 1, -1)


class Virtual(nn.Module, ABC):
    """Calls the host on tokens of its own, [B, P, d], among the embeddings E of the words; answers for E alone.

    A subclass makes them.
    """

    def __init__(self, length: int, embed: Borrowed) -> None:
        super().__init__()
        self.embed, self.length = embed, length

    @abstractmethod
    def made(self, embeds: Tensor, mask: Tensor | None) -> Tensor:
        """The tokens for E [B, T, d] and its mask [B, T]: [B, P, d]."""

    def starts(self, ids: Tensor) -> Tensor:
        """The words [B, T] before which tokens stand, as many at each: [B, parts]; by default all before the first."""
        return torch.zeros(ids.shape[0], 1, dtype=torch.long, device=ids.device)

    def forward(self, call: Callable[..., Any], input_ids: Tensor, **kwargs: Any) -> Any:
        embeds, mask = self.embed(input_ids), kwargs.get("attention_mask")  # [B, T, d], [B, T]
        made = self.made(embeds, None if mask is None else mask.bool())
        starts = self.starts(input_ids).sort(-1).values  # [B, parts]
        each = self.length // starts.shape[1]
        words = torch.arange(input_ids.shape[1], device=input_ids.device)
        before = (starts[:, None] <= words[:, None]).sum(-1)  # [B, T] parts that stand before a word
        own = words + each * before  # [B, T] where each word now is
        shift = each * torch.arange(starts.shape[1], device=input_ids.device)
        new = (starts + shift)[..., None] + torch.arange(each, device=input_ids.device)  # [B, parts, each]
        order = torch.cat([new.flatten(1), own], 1).argsort(1)
        together = moved(torch.cat([made, embeds], 1), order)
        if mask is not None:
            kwargs["attention_mask"] = F.pad(mask, (self.length, 0), value=1).gather(1, order)
        return self._own(call(inputs_embeds=together, **kwargs), own)

    def _own(self, found: Any, own: Tensor) -> Any:
        """What the host gives, without the new tokens in any of its states."""
        if isinstance(found, Tensor):
            longer = found.dim() > 2 and found.shape[1] == self.length + own.shape[1]
            return moved(found, own) if longer else found
        if isinstance(found, tuple):
            return tuple(self._own(one, own) for one in found)
        return type(found)(**{key: self._own(one, own) for key, one in found.items()})


class Prefix(Virtual):
    """P = W_2 relu(W_1 max_t(LSTM(E)_t)), before E; or in three parts before and after the subject and after [MASK].

    Where the subject is not told, these places are after the first token, before [MASK] and after it.
    """

    def __init__(self, width: int, length: int, embed: Borrowed, around: int | None, subject: Subject) -> None:
        super().__init__(length, embed)
        self.lstm, self.around, self.subject = BothWays(width), around, subject
        self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, length * width)

    def made(self, embeds: Tensor, mask: Tensor | None) -> Tensor:
        read = self.lstm(embeds, mask)
        if mask is not None:
            read = read.masked_fill(~mask.unsqueeze(-1), torch.finfo(read.dtype).min)
        return self.outer(self.inner(read.amax(1)).relu()).unflatten(-1, (self.length, -1))

    def starts(self, ids: Tensor) -> Tensor:
        if self.around is None:
            return super().starts(ids)
        hidden = (ids == self.around).int().argmax(1, keepdim=True)  # [B, 1]
        first, end = self.subject(ids)
        one, two = torch.where(first < 0, 1, first), torch.where(end < 0, hidden, end)
        return torch.cat([one, two, hidden + 1], 1)


class Chosen(Virtual):
    """The prompt P_r of one of N relations before E: r as it is told in training, and else the largest of
    z = W mean_t(E_t) + b, with the gradient of the mixture by softmax(z).

    In training z learns the r that are told by cross-entropy.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(self, width: int, length: int, count: int, weight: float, embed: Borrowed, relation: Wire) -> None:
        super().__init__(length, embed)
        self.prompts = nn.Parameter(0.02 * torch.randn(count, length, width))
        self.classify = nn.Linear(width, count)
        self.weight, self.relation = weight, relation

    def made(self, embeds: Tensor, mask: Tensor | None) -> Tensor:
        scores = self.classify(masked_mean(embeds, mask))  # [B, N]
        soft = scores.softmax(-1)
        gates = F.one_hot(scores.argmax(-1), scores.shape[-1]) + soft - soft.detach()
        if self.training:
            told = self.relation().to(embeds.device).expand(embeds.shape[0])  # [B]
            loss = F.cross_entropy(scores.float(), told, ignore_index=-1, reduction="sum")
            self.auxiliary_loss = self.weight * loss / (told >= 0).sum().clamp(min=1)
            known = F.one_hot(told.clamp(min=0), scores.shape[-1]).to(gates)
            gates = torch.where(told[:, None] < 0, gates, known)
        return torch.einsum("bn,npd->bpd", gates, self.prompts)
