"""The real blood cells: what the recipe says of them, and that a cell's side of the split is its own."""

import pytest

from assembler.batches import split
from assembler.check import check
from assembler.spec import Document, Spec
from components.datasets.pbmc68k import SOURCE, WORDS, Pbmc68k


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    Pbmc68k().fetch(base)
    return Pbmc68k().rows(base)


def test_a_cell_has_normalised_values_of_765_genes_and_one_of_ten_names(rows):
    assert len(rows) == 700 and len({rows.key(i) for i in range(700)}) == 700
    assert {rows.plain(i)["word"] for i in range(700)} == set(WORDS.values())
    assert {(rows.plain(i)["label"], rows.plain(i)["word"]) for i in range(700)} == set(enumerate(WORDS.values()))
    cell = rows[3]["cell"]
    assert cell.values.shape == (765,) and cell.values.min() == 0 and not cell.raw


def test_the_split_is_that_of_the_cells_themselves(rows, tmp_path):
    """Fewer rows leave the others where they are."""
    nodes = {"cell": {"type": "input.expression", "vocabulary": SOURCE, "normalise": "none"}}
    sides = []
    for options in ({}, {"limit": 350}):
        tree = {"assembler": 1, "nodes": nodes, "data": {"type": "dataset.pbmc68k", "options": options}}
        parts = split(check(Spec(tmp_path / "cells.yaml", Document.model_validate(tree), tree)))
        sides.append([{part.key(i) for i in range(len(part))} for part in parts])
    (learned, held), (fewer_learned, fewer_held) = sides
    assert fewer_learned < learned and fewer_held < held and 100 < len(held) < 180
