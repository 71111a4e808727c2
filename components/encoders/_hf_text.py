"""The module of `encoder.hf_text`."""

from __future__ import annotations

from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from assembler.errors import told
from assembler.ragged import Ragged, masked_mean
from components.encoders._masked_words import Guess
from components.encoders._states import LayerMix


class TextTower(nn.Module):
    """A text encoder of transformers that reads token ids and their mask.

    With `guess` it is a model of masked words, and learns by them while a stage's objectives name it.
    """

    auxiliary_loss: Tensor | None = None
    asked: bool = False
    """Whether the stage's objectives name this node."""

    def __init__(
        self,
        config: dict[str, Any],
        layer: int | None,
        mix: bool,
        pool: Literal["mean", "cls"] | None,
        normalise: bool,
        pad: int,
        options: dict[str, Any],
        guess: Guess | None = None,
        kind: str = "",
    ) -> None:
        super().__init__()
        with told(f"transformers cannot make a {config['model_type']} of this config"):
            made = AutoConfig.for_model(**config)
            if layer is not None:
                made.num_hidden_layers = layer + 1
            if kind:
                self.model: Any = getattr(transformers, kind)(made)
            else:
                self.model = (AutoModel if guess is None else AutoModelForMaskedLM).from_config(made, **options)
        self.guess = guess
        self.pool, self.normalise, self.pad = pool, normalise, pad
        self.mix = LayerMix(made.num_hidden_layers + 1) if mix else None

    def for_loss(self) -> list[str]:
        """The parameters that only the guessing needs."""
        body = ("mix.", f"model.{self.model.base_model_prefix}.")
        return [] if self.guess is None else [k for k, _ in self.named_parameters() if not k.startswith(body)]

    def forward(self, text: Ragged) -> Tensor | Ragged:
        ids, mask = text  # [B, T] each
        attended = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)  # an empty text still has a row
        ids = torch.where(mask, ids, self.pad)  # a RoBERTa counts its positions past what is no padding
        hides = self.guess is not None and self.asked and self.training
        read, wanted = self.guess(ids, mask) if hides else (ids, None)  # type: ignore[misc]
        states = self.mix is not None or self.guess is not None
        out = self.model(input_ids=read, attention_mask=attended.long(), output_hidden_states=states)
        if wanted is not None:
            loss = F.cross_entropy(out.logits.flatten(0, 1).float(), wanted.flatten(), reduction="sum")
            self.auxiliary_loss = loss / (wanted >= 0).sum().clamp(min=1)
        last = out.last_hidden_state if self.guess is None else out.hidden_states[-1]
        x = last if self.mix is None else self.mix(out.hidden_states)  # [B, T, D]
        if self.pool is None:
            return Ragged(x, mask)
        pooled = x[:, 0] if self.pool == "cls" else masked_mean(x, mask)  # [B, D]
        return F.normalize(pooled, dim=-1) if self.normalise else pooled
