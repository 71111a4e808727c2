"""Learned embeddings before a causal LM's prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from assembler.adapters.host import Borrowed
from assembler.errors import AssemblerError


class Prepended(nn.Module):
    """Calls a causal LM of transformers with P more embeddings in front, and gives what it says about the others."""

    def __init__(self, lm: nn.Module, length: int) -> None:
        super().__init__()
        if not hasattr(lm, "get_input_embeddings") or not hasattr(lm, "lm_head"):
            raise AssemblerError(f"prompt tuning takes a causal LM, and {type(lm).__name__} is none")
        embed = lm.get_input_embeddings()  # type: ignore[operator]
        self.embed = Borrowed(embed)
        self.table = nn.Parameter(torch.randn(length, embed.weight.shape[1]))

    def words(self) -> Tensor:
        """P: [length, D]."""
        return self.table

    def forward(self, call: Callable[..., Any], input_ids: Tensor | None = None, **kwargs: Any) -> Any:
        embeds = self.embed(input_ids) if kwargs.get("inputs_embeds") is None else kwargs["inputs_embeds"]  # [B, T, D]
        batch, length = embeds.shape[0], self.table.shape[0]
        cache = kwargs.get("past_key_values", kwargs.get("cache"))
        begins = cache is None or cache.get_seq_length() == 0
        ones = torch.ones(batch, length, dtype=torch.long, device=embeds.device)
        if kwargs.get("attention_mask") is not None:
            kwargs["attention_mask"] = torch.cat([ones.to(kwargs["attention_mask"]), kwargs["attention_mask"]], 1)
        if kwargs.get("position_ids") is not None:
            places = kwargs["position_ids"] + length
            kwargs["position_ids"] = torch.cat([ones.cumsum(1) - 1, places.expand(batch, -1)], 1) if begins else places
        if begins:
            embeds = torch.cat([self.words().to(embeds).expand(batch, -1, -1), embeds], 1)  # [B, P + T, D]
        out = call(**{**kwargs, "inputs_embeds": embeds})
        if begins and kwargs.get("logits_to_keep", 0) == 0:
            out["logits"] = out["logits"][:, length:]
        return out


class Encoded(Prepended):
    """The same with P computed from the table by an encoder."""

    def __init__(self, lm: nn.Module, length: int, encoder: Callable[[int], nn.Module]) -> None:
        super().__init__(lm, length)
        self.encoder = encoder(self.table.shape[1])

    def words(self) -> Tensor:
        return self.encoder(self.table)


class LstmEncoder(nn.Module):
    """W2 ReLU(W1 biLSTM(E)), W1 [2h, 2h] and W2 [d, 2h]: [P, d] -> [P, d]."""

    def __init__(self, width: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, depth, bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width))

    def forward(self, table: Tensor) -> Tensor:
        return self.head(self.lstm(table.unsqueeze(0))[0])[0]


def mlp_encoder(width: int, hidden: int) -> nn.Module:
    """W3 ReLU(W2 ReLU(W1 E)), as wide as h inside."""
    first, second, last = nn.Linear(width, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, width)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
