"""Learned tokens in front of a causal LM's own, and the networks that P-tuning computes them by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed
from assembler.adapters.tap import first_of, with_first


class LstmHead(nn.Module):
    """Linear(2h, d)(ReLU(Linear(2h, 2h)(biLSTM(E))))."""

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, depth, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width))

    def forward(self, table: Tensor) -> Tensor:
        return self.head(self.lstm(table.unsqueeze(0))[0])[0]  # [P, d] -> [P, d]


def reparametrised(kind: str, width: int, hidden: int, depth: int) -> nn.Module:
    """What the table goes through."""
    if kind == "lstm":
        return LstmHead(width, hidden, depth)
    if kind == "mlp":
        sizes = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width)]
        return nn.Sequential(*sizes)
    return nn.Identity()


class SoftPrompt(nn.Module):
    """Calls the LM on [P; E]: P [P, d] are the learned tokens, E [B, T, d] the prompt's; answers for E alone.

    An LM that `keeps` only the last logits when it is asked to makes none for P.
    """

    def __init__(self, embed: Borrowed, length: int, width: int, encoder: nn.Module, keeps: bool = False) -> None:
        super().__init__()
        self.embed, self.length, self.encoder, self.keeps = embed, length, encoder, keeps
        self.table = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, call: Any, input_ids: Tensor | None = None, **kwargs: Any) -> Any:
        embeds = kwargs.pop("inputs_embeds", None)
        embeds = self.embed(input_ids) if embeds is None else embeds  # [B, T, d]
        batch, tokens = embeds.shape[:2]
        past = kwargs.get("cache", kwargs.get("past_key_values"))  # by either version of transformers
        first = past is None or past.get_seq_length() == 0
        if (mask := kwargs.get("attention_mask")) is not None:
            kwargs["attention_mask"] = F.pad(mask, (self.length, 0), value=1)
        if (places := kwargs.get("position_ids")) is not None:
            before = torch.arange(self.length, device=places.device).expand(places.shape[0], -1)
            moved = places + self.length
            kwargs["position_ids"] = torch.cat([before, moved], 1) if first else moved
        if first:
            own = self.encoder(self.table).to(embeds.dtype).expand(batch, -1, -1)  # [B, P, d]
            embeds = torch.cat([own, embeds], 1)
            if self.keeps and not isinstance(kwargs.get("logits_to_keep"), Tensor):
                kwargs["logits_to_keep"] = min(kwargs.get("logits_to_keep") or tokens, tokens)
        output = call(inputs_embeds=embeds, **kwargs)
        logits = first_of(output)
        return with_first(output, logits[:, -tokens:]) if logits.shape[1] > tokens else output
