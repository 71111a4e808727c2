"""The module of `encoder.hf_text`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from assembler.errors import told
from assembler.ragged import Ragged, masked_mean
from components.encoders._states import LayerMix


class TextTower(nn.Module):
    """A text encoder of transformers that reads token ids and their mask."""

    def __init__(
        self,
        config: dict[str, Any],
        layer: int | None,
        mix: bool,
        pool: Literal["mean", "cls"] | None,
        normalise: bool,
        pad: int,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        with told(f"transformers cannot make a {config['model_type']} of this config"):
            made = AutoConfig.for_model(**config)
            if layer is not None:
                made.num_hidden_layers = layer + 1
            self.model: Any = AutoModel.from_config(made, **options)
        self.pool, self.normalise, self.pad = pool, normalise, pad
        self.mix = LayerMix(made.num_hidden_layers + 1) if mix else None

    def forward(self, text: Ragged) -> Tensor | Ragged:
        ids, mask = text  # [B, T] each
        attended = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)  # an empty text still has a row
        ids = torch.where(mask, ids, self.pad)  # a RoBERTa counts its positions past what is no padding
        out = self.model(input_ids=ids, attention_mask=attended.long(), output_hidden_states=self.mix is not None)
        x = out.last_hidden_state if self.mix is None else self.mix(out.hidden_states)  # [B, T, D]
        if self.pool is None:
            return Ragged(x, mask)
        pooled = x[:, 0] if self.pool == "cls" else masked_mean(x, mask)  # [B, D]
        return F.normalize(pooled, dim=-1) if self.normalise else pooled
