"""The modules of the two Q-Formers, around the one of transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel

from assembler.ragged import Ragged, paired
from components.projectors._attention import some
from components.projectors._layers import opened, window_masks, windows

DEVIATION = 0.02


class Reader(nn.Module):
    """Learned queries that read [N, K, in] under a mask [N, K] -> [N, queries, out]."""

    def __init__(
        self,
        inner: int,
        outer: int,
        queries: int,
        every: int,
        hidden: int,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, queries, hidden) * DEVIATION)
        config = Blip2QFormerConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=feed_forward,
            cross_attention_frequency=every,
            encoder_hidden_size=inner,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=DEVIATION,
            use_qformer_text_input=False,
        )
        config._attn_implementation = "sdpa"
        self.qformer = Blip2QFormerModel(config)
        self.linear = nn.Linear(hidden, outer)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        out = self.qformer(
            query_embeds=self.queries.expand(x.shape[0], -1, -1),
            encoder_hidden_states=x,
            encoder_attention_mask=None if mask is None else some(mask),
        )
        return self.linear(out.last_hidden_state)


class QFormerLayer(nn.Module):
    """Queries over the whole sequence."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, tokens: Tensor | Ragged) -> Tensor:
        return self.reader(*opened(tokens))


class WindowQFormerLayer(nn.Module):
    """Queries over each window of `size` frames."""

    def __init__(self, reader: Reader, size: int) -> None:
        super().__init__()
        self.reader, self.size = reader, size

    def forward(self, tokens: Tensor | Ragged) -> Tensor | Ragged:
        x, mask = opened(tokens)
        batch, count = x.shape[0], self.reader.queries.shape[1]
        real = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        real = window_masks(real, self.size)  # [B, W, w], what lacks at the end is padding too
        cut = windows(x, self.size)  # [B, W, w, in]
        read = self.reader(cut.flatten(0, 1), real.flatten(0, 1))  # [B * W, n, out]
        kept = None if mask is None else real.any(-1).repeat_interleave(count, 1)
        return paired(read.reshape(batch, -1, read.shape[-1]), kept)
