"""The module of `encoder.hf_text`."""

from __future__ import annotations

from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from assembler.configs import check_heads
from assembler.errors import told
from assembler.ragged import Ragged, masked_mean
from components.encoders._masked_words import Guess
from components.encoders._states import LayerMix


class TextTower(nn.Module):
    """A text encoder of transformers that reads token ids and their mask.

    With `guess` it is a model of masked words, and learns by them while a stage's objectives name it. With `word` it
    gives what it would say at the first [MASK].
    """

    auxiliary_loss: Tensor | None = None
    asked: bool = False
    """Whether the stage's objectives name this node."""

    def __init__(
        self,
        config: dict[str, Any],
        layer: int | None,
        mix: bool,
        pool: Literal["mean", "cls", "last"] | None,
        normalise: bool,
        pad: int,
        options: dict[str, Any],
        guess: Guess | None = None,
        kind: str = "",
        word: bool = False,
    ) -> None:
        super().__init__()
        with told(f"transformers cannot make a {config['model_type']} of this config"):
            made = AutoConfig.for_model(**config)
            made.use_cache = False
            check_heads(made)
            if layer is not None:
                made.num_hidden_layers = layer + 1
            if kind:
                self.model: Any = getattr(transformers, kind)(made)
            else:
                self.model = (AutoModel if guess is None else AutoModelForMaskedLM).from_config(made, **options)
        self.guess, self.word = guess, word
        self.pool, self.normalise, self.pad = pool, normalise, pad
        self.mix = LayerMix(made.num_hidden_layers + 1) if mix else None

    def for_loss(self) -> list[str]:
        """The parameters that only the guessing needs."""
        body = ("mix.", f"model.{self.model.base_model_prefix}.")
        return (
            [] if self.guess is None or self.word else [k for k, _ in self.named_parameters() if not k.startswith(body)]
        )

    def forward(self, *given: Any) -> Tensor | Ragged:
        """The text, and before it, where it is told, whether words may be hidden in a row: [B]."""
        *told, (ids, mask) = given  # [B, T] each
        attended = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)  # an empty text still has a row
        ids = torch.where(mask, ids, self.pad)  # a RoBERTa counts its positions past what is no padding
        hides = self.guess is not None and self.asked and self.training
        free = mask & told[0][:, None] if told and told[0] is not None else mask
        read, wanted = self.guess(ids, free) if hides else (ids, None)  # type: ignore[misc]
        states = self.mix is not None or self.guess is not None
        out = self.model(input_ids=read, attention_mask=attended.long(), output_hidden_states=states)
        if wanted is not None:
            loss = F.cross_entropy(out.logits.flatten(0, 1).float(), wanted.flatten(), reduction="sum")
            self.auxiliary_loss = loss / (wanted >= 0).sum().clamp(min=1)
        if self.guess is not None and self.word:
            return at(out.logits, (ids == self.guess.mask).int().argmax(1))  # [B, V]
        last = out.last_hidden_state if self.guess is None else out.hidden_states[-1]
        x = last if self.mix is None else self.mix(out.hidden_states)  # [B, T, D]
        if self.pool is None:
            return Ragged(x, mask)
        if self.pool == "last":
            pooled = at(x, (mask.sum(1) - 1).clamp(min=0))  # [B, D]
        else:
            pooled = x[:, 0] if self.pool == "cls" else masked_mean(x, mask)
        return F.normalize(pooled, dim=-1) if self.normalise else pooled


def at(x: Tensor, place: Tensor) -> Tensor:
    """One token of each row, [B, T, D] and [B] -> [B, D]."""
    return x.gather(1, place[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)
