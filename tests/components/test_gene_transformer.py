"""The gene transformer: the tokens that a cell becomes, which weights it reads, and what it learns by guessing."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM

from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.ragged import Ragged
from assembler.spec import Document, Spec

GENES = [f"G{i}" for i in range(9)]
SMALL = {"width": 16, "depth": 2, "heads": 2, "hidden": 24, "length": 6}


def graph_of(base: Path, normalise: str = "none", **knobs):
    nodes = {
        "cell": {"type": "input.expression", "genes": GENES, "normalise": normalise},
        "reads": {"type": "encoder.gene_transformer", **SMALL, **knobs},
    }
    tree = {"assembler": 1, "nodes": nodes, "edges": ["cell -> reads"]}
    return check(Spec((base / "cells.yaml").resolve(), Document.model_validate(tree), tree))


def tower(base: Path = Path.cwd(), normalise: str = "none", **knobs):
    return compile_graph(graph_of(base, normalise, **knobs)).nodes["reads"]


def written(path: Path, content) -> str:
    path.write_text(json.dumps(content))
    return path.name


def token_ids(module, cell) -> list[int]:
    """The genes that the module reads, in the order in which it reads them."""
    seen = []
    handle = module.embeddings.word_embeddings.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        module(torch.tensor([cell], dtype=torch.float32))
    handle.remove()
    return [int(i) for i in seen[0][0] if i]


values = st.lists(st.integers(0, 6), min_size=9, max_size=9)
medians_of = st.lists(st.integers(1, 4), min_size=9, max_size=9)


@settings(max_examples=10, deadline=None)
@given(
    cell=values, factor=st.sampled_from([0.5, 2.0, 8.0]), medians=st.lists(st.integers(1, 4), min_size=9, max_size=9)
)
def test_genes_are_ranked_by_counts_over_their_medians_whatever_the_cells_depth(
    cell, factor, medians, tmp_path_factory
):
    base = tmp_path_factory.mktemp("genes")
    written(base / "medians.json", dict(zip(GENES, medians, strict=True)))
    module = tower(base, "counts", medians="medians.json")
    scores = np.float32(cell) / np.float32(medians)
    wanted = [int(i) + 1 for i in np.argsort(-scores, kind="stable") if scores[i] > 0][:6]
    assert token_ids(module, cell) == token_ids(module, [x * factor for x in cell]) == wanted


def test_logarithms_are_undone_before_medians_are_taken(tmp_path):
    written(tmp_path / "medians.json", {**dict.fromkeys(GENES, 1.0), "G0": 2.9})
    cell = [3.0, 2.0, *[0.0] * 7]  # by their logarithms G1 would be first: 3 / 2.9 < 2
    assert token_ids(tower(tmp_path, medians="medians.json"), cell) == [1, 2]
    assert token_ids(tower(tmp_path, "counts", medians="medians.json"), cell) == [2, 1]


@settings(max_examples=10, deadline=None)
@given(cell=values.filter(any), bins=st.integers(3, 8))
def test_bins_are_those_of_the_cells_own_quantiles(cell, bins):
    module = tower(tokens="binned", bins=bins)
    ordered = torch.tensor([sorted(cell, reverse=True)], dtype=torch.float32)
    there = np.float32([x for x in sorted(cell, reverse=True) if x > 0])
    wanted = np.digitize(there, np.quantile(there, np.linspace(0, 1, bins - 1)))
    found = module._binned(ordered, ordered)[0, : len(there)]
    assert np.abs(found.numpy() - wanted).max() <= 1  # numpy's own quantiles round in float64
    assert found.max() == bins - 1 and found.min() >= 1 and (found.diff() <= 0).all()


@pytest.mark.parametrize("tokens", ["ranked", "binned"])
def test_genes_without_a_value_change_nothing_and_a_cell_of_nothing_has_no_token(tokens):
    module = tower(tokens=tokens)
    with torch.no_grad():
        both = module(torch.tensor([[0, 0, 2.0, 0, 1.0, 0, 0, 0, 0], [0.0] * 9]))
        module.embeddings.word_embeddings.weight[1] += 5  # of G0, which neither cell has
        again = module(torch.tensor([[0, 0, 2.0, 0, 1.0, 0, 0, 0, 0], [0.0] * 9]))
    assert isinstance(both, Ragged) and both.mask.sum(1).tolist() == [2, 0]
    assert both.values.isfinite().all() and torch.equal(both.values, again.values)


def geneformer(base: Path) -> BertForMaskedLM:
    """A small model as Geneformer saves them, with its two files as JSON."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = BertConfig(**sizes, vocab_size=14, max_position_embeddings=6, hidden_act="relu", pad_token_id=0)
    model = BertForMaskedLM(config).eval()
    model.save_pretrained(base / "model")
    written(base / "dictionary.json", {"<pad>": 0, "<mask>": 1, **{gene: 13 - i for i, gene in enumerate(GENES[:7])}})
    written(base / "medians.json", dict.fromkeys(GENES, 1.0))
    return model


def test_a_folder_of_geneformers_is_read_with_its_dictionary(tmp_path):
    model = geneformer(tmp_path)
    knobs = {"weights": "file:model", "dictionary": "dictionary.json", "medians": "medians.json"}
    with pytest.warns(UserWarning, match="2 of 9 genes are not in .*dictionary.json"):
        module = tower(tmp_path, "counts", **knobs)
    cell = torch.tensor([[0, 1.0, 5, 0, 0, 2, 0, 9, 9]])  # the last two have no number
    with torch.no_grad():
        found, mask = module(cell)
        wanted = model.bert(torch.tensor([[11, 8, 12]])).last_hidden_state
    assert mask.sum() == 3
    torch.testing.assert_close(found[:, :3], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"weights": "file:model"}, "is of Geneformer, whose numbers of genes are not known here"),
        ({"weights": "file:scgpt.safetensors"}, "is of scGPT, which embeds values by an MLP"),
        ({"weights": "file:other.safetensors"}, "there is no embeddings.word_embeddings.weight"),
        ({"medians": "gone.json"}, r"gone\.json cannot be read"),
        ({"medians": "zero.json"}, r"zero\.json: G1 is 0; give a number above 0"),
        ({"medians": "strange.json"}, "there is none of the 9 genes of the spec"),
    ],
)
def test_what_it_cannot_read_is_a_sentence(knobs, sentence, tmp_path):
    geneformer(tmp_path)
    save_file({"value_encoder.linear1.weight": torch.zeros(2, 1)}, tmp_path / "scgpt.safetensors")
    save_file({"weight": torch.zeros(2, 1)}, tmp_path / "other.safetensors")
    written(tmp_path / "zero.json", {"G1": 0})
    written(tmp_path / "strange.json", {"X1": 1})
    with pytest.raises(AssemblerError, match=sentence):
        tower(tmp_path, **knobs)


def test_it_learns_to_guess_hidden_values_better_than_by_their_mean(tmp_path):
    torch.manual_seed(0)
    assembly = compile_graph(graph_of(tmp_path, tokens="binned", bins=12, pretrain=True, length=9))
    assembly.only(["reads"])
    assembly.train_only(["reads"])
    assembly.train()
    kinds = torch.rand(3, 9) * 3 + 0.5  # three kinds of cell: a gene's value tells those of the others
    optimizer = torch.optim.AdamW(assembly.parameters(), lr=8e-3)
    losses, blind = [], []
    for _ in range(300):
        cells = kinds[torch.randint(0, 3, (16,))]
        loss = assembly(cell=cells)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        blind.append((cells - kinds.mean(0)).square().mean().item())
    assert sum(losses[-20:]) < 0.5 * sum(blind[-20:])
