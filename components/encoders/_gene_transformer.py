"""The module of `encoder.gene_transformer`."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from assembler.errors import AssemblerError
from assembler.genes import aliases
from assembler.ragged import Ragged, masked_mean
from components.encoders._genes import SPREAD, MaskedValues
from components.encoders._states import LayerMix

PAD = 0
MOST = 1_000_000
"""Tokens of a dictionary at most."""


class Vocabulary(NamedTuple):
    """The token number and the usual value of each gene of the input; a gene without either is never read.

    Attributes:
        ids: numbers from 0, 0 being the padding's.
        usual: values above 0; infinite for a gene that is never read.
        size: how many tokens there are.
    """

    ids: list[int]
    usual: list[float]
    size: int

    @classmethod
    def of(cls, genes: Sequence[str], medians: Path | None, dictionary: Path | None) -> Vocabulary:
        """By the files that are given: without a dictionary the genes count from 1, without medians all are 1.

        Raises:
            AssemblerError: a file cannot be read, holds something else, or has none of the genes.
        """
        numbers = None if dictionary is None else _table(dictionary, f"a number from 0 below {MOST:,}", _is_number)
        usual = None if medians is None else _table(medians, "a number above 0", _is_usual)
        ids = [_of(numbers, gene, 0) if numbers is not None else i + 1 for i, gene in enumerate(genes)]
        found = [math.inf if i == PAD else _of(usual, gene, math.inf) for i, gene in zip(ids, genes, strict=True)]
        if usual is None:
            found = [math.inf if i == PAD else 1.0 for i in ids]
        lacking = sum(map(math.isinf, found))
        names = " and ".join(str(path) for path in (dictionary, medians) if path is not None)
        if lacking == len(genes):
            raise AssemblerError(f"{names}: there is none of the {len(genes):,} genes of the spec; name genes alike")
        if lacking:
            warnings.warn(f"{lacking:,} of {len(genes):,} genes are not in {names} and are not read", stacklevel=2)
        return cls([int(i) for i in ids], found, len(genes) + 1 if numbers is None else int(max(numbers.values())) + 1)


def _is_number(found: object) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < MOST


def _is_usual(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < math.inf


def _of(table: dict[str, float] | None, gene: str, otherwise: float) -> float:
    return next((table[name] for name in aliases(gene) if name in table), otherwise) if table else otherwise


def _table(path: Path, wanted: str, fits: Any) -> dict[str, float]:
    """The JSON object of genes in a file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AssemblerError(f"{path} cannot be read ({error}); give a JSON object, gene -> {wanted}") from error
    if not isinstance(found, dict) or not found:
        raise AssemblerError(f"{path} is no JSON object of genes; give one, gene -> {wanted}")
    wrong = next((gene for gene, one in found.items() if not fits(one)), None)
    if wrong is not None:
        raise AssemblerError(f"{path}: {wrong[:40]} is {found[wrong]!r:.40}; give {wanted}")
    return found


def _strongest_first(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [B, G] in falling order and where they stood; equal ones in their order.

    ONNX has no stable sort, and its TopK takes the first of equals where torch's takes any.
    """
    if torch.compiler.is_exporting():
        return scores.topk(scores.shape[1], dim=1)
    return scores.sort(dim=1, descending=True, stable=True)


class BinnedEmbeddings(nn.Module):
    """LN(E_g) + LN(V_bin) of genes [B, T] and bins [B, T] -> [B, T, d]; what of them is hidden is put in between."""

    def __init__(self, genes: int, bins: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(genes, width, padding_idx=PAD)
        self.LayerNorm = nn.LayerNorm(width)
        self.value_embeddings = nn.Embedding(bins, width, padding_idx=PAD)
        self.value_norm = nn.LayerNorm(width)
        for table in (self.word_embeddings, self.value_embeddings):
            nn.init.normal_(table.weight, std=SPREAD)

    def genes(self, ids: Tensor) -> Tensor:
        """LN(E_g)"""
        return self.LayerNorm(self.word_embeddings(ids))

    def values(self, bins: Tensor) -> Tensor:
        """LN(V_bin)"""
        return self.value_norm(self.value_embeddings(bins))


class GeneTransformerTower(MaskedValues):
    """Expression [B, G] -> tokens [B, T, d] with their mask, or their mean [B, d]."""

    ids: Tensor
    usual: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        bins: int | None,
        linear: bool,
        length: int,
        positions: int,
        sizes: dict[str, Any],
        mix: bool,
        pooled: bool,
        rates: tuple[float, float] | None,
    ) -> None:
        super().__init__(sizes["hidden_size"], rates)
        config = BertConfig(
            **sizes,
            vocab_size=vocabulary.size,
            max_position_embeddings=positions,
            pad_token_id=PAD,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=1e-12 if bins is None else 1e-5,
        )
        bert = BertModel(config, add_pooling_layer=False)
        self.embeddings: Any = bert.embeddings
        if bins is not None:
            self.embeddings = BinnedEmbeddings(vocabulary.size, bins, config.hidden_size)
        self.encoder = bert.encoder
        self.bins, self.linear, self.length, self.pooled = bins, linear, length, pooled
        self.mix = LayerMix(config.num_hidden_layers + 1) if mix else None
        self.register_buffer("ids", torch.tensor(vocabulary.ids), persistent=False)
        self.register_buffer("usual", torch.tensor(vocabulary.usual), persistent=False)

    def forward(self, expression: Tensor) -> Tensor | Ragged:
        """The strongest genes first; of equally strong ones the first of the input."""
        scores = expression.clamp(min=0)  # [B, G]
        if self.bins is None:
            scores = (scores if self.linear else scores.expm1()) / self.usual
        ordered, order = _strongest_first(scores)
        values, order = ordered[:, : self.length], order[:, : self.length]  # [B, T]
        mask = values > 0
        ids = torch.where(mask, self.ids[order], PAD)
        hidden = None
        if self.bins is None:
            x = self.embeddings(input_ids=ids)  # [B, T, d]
        else:
            found = self.embeddings.values(torch.where(mask, self._binned(ordered, values), PAD))
            found, hidden = self.hide(found, values)
            x = self.embeddings.genes(ids) + found
        x = self._read(x, mask)
        if hidden is not None:
            self.guess(x, values, hidden)
        return masked_mean(x, mask) if self.pooled else Ragged(x, mask)

    def _binned(self, ordered: Tensor, values: Tensor) -> Tensor:
        """The bin of each of `values` [B, T], from 1 on: how many of its cell's quantiles are not above it.

        `ordered` [B, G] has a cell's values from the largest on; the quantiles are those of what is above 0, at j / (K
        - 1) for j below K = bins - 1, on lines between neighbours.
        """
        assert self.bins is not None
        steps = self.bins - 2
        last = (ordered > 0).sum(1, keepdim=True).clamp(min=1) - 1  # [B, 1], place of the smallest
        along = last * torch.arange(steps + 1, device=ordered.device)  # [B, K], whole numbers, so that places are exact
        low = torch.div(along, steps, rounding_mode="floor")
        share = (along - low * steps).to(ordered.dtype) / steps
        below = ordered.gather(1, last - low)
        above = ordered.gather(1, last - torch.minimum(low + 1, last))
        edges = below + share * (above - below)
        return (values.unsqueeze(-1) >= edges.unsqueeze(1)).sum(-1)

    def _read(self, x: Tensor, mask: Tensor) -> Tensor:
        attended = mask | (torch.arange(mask.shape[1], device=mask.device) == 0)  # a cell of nothing still has a row
        bias = torch.where(attended, 0.0, torch.finfo(x.dtype).min).to(x.dtype)[:, None, None]
        bias = bias.expand(-1, 1, x.shape[1], -1)  # [B, 1, T, T]
        states = [x]
        for layer in self.encoder.layer:
            states.append(layer(states[-1], bias))
        return states[-1] if self.mix is None else self.mix(states)
