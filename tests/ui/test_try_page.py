"""What a person gives is read by the guarded readers, and shown; a cell by its genes and its place among others."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import components.datasets
from assembler.errors import AssemblerError
from assembler.readers import READERS
from assembler.samples import Cell
from ui import cells, pickers
from ui.cloud import MOST, as_data

EXAMPLE = Path(components.datasets.__file__).parent / "example"


@pytest.mark.parametrize("kind", sorted(READERS))
def test_a_damaged_upload_is_a_sentence_with_the_name_that_the_user_knows(kind):
    with pytest.raises(AssemblerError) as error:
        pickers.read_upload(kind, "holiday.png", b"\x00 this is nothing")
    assert "holiday.png" in str(error.value) and "/tmp" not in str(error.value)


@given(st.text(max_size=40))
def test_a_name_of_an_upload_is_never_a_path(name):
    picture = (EXAMPLE / "0.png").read_bytes()
    assert pickers.read_upload("image", f"../../{name}/x\0.png", picture).size == (8, 8)


def test_every_kind_that_is_read_can_be_given():
    assert set(READERS) == set(pickers.ENDINGS) | {"expression"}


def test_a_cell_of_an_uploaded_file_can_be_read_when_the_file_is_gone():
    file = cells.opened("mine.h5ad", (EXAMPLE / "cells.h5ad").read_bytes())
    cell = file.cell(3)
    assert len(cell.values) == len(cell.genes) > 0
    with pytest.raises(AssemblerError, match="mine"):
        cells.opened("mine.h5ad", b"nothing")


def test_the_highest_genes_come_first_by_their_first_name():
    cell = Cell(np.array([1, 5, 3], np.float32), ("A ENSG1", "B ENSG2", "C"), raw=True)
    assert cells.top_genes(cell) == (["B", "C", "A"], [5.0, 3.0, 1.0])


def test_cells_of_a_kind_are_together_on_the_map():
    random = np.random.default_rng(0)
    rates = np.repeat(random.gamma(1.0, 20.0, (2, 50)), 20, axis=0)
    table = random.poisson(rates).astype(np.float32)
    places = cells.cell_map([Cell(row, tuple(map(str, range(50))), raw=True) for row in table])
    assert places.shape == (40, 2)
    first, second = places[:20], places[20:]
    apart = np.linalg.norm(first.mean(0) - second.mean(0))
    assert apart > 3 * max(first.std(0).max(), second.std(0).max())


@pytest.mark.parametrize("genes", [1, 2])
def test_a_map_of_few_genes_is_a_map(genes):
    row = np.ones(genes, np.float32)
    assert cells.cell_map([Cell(row * i, ("A", "B")[:genes], raw=False) for i in range(4)]).shape == (4, 2)


@given(st.integers(1, 2 * MOST), st.sampled_from([3, 6, 9]), st.floats(0.01, 1000))
def test_a_cloud_is_drawn_around_the_middle_in_a_box_of_one(count, channels, scale):
    points = (np.random.default_rng(count).normal(size=(count, channels)) * scale + 7).astype(np.float32)
    drawn = as_data(points)
    places = np.array(drawn["points"]).reshape(-1, 3)
    assert len(places) == min(count, MOST) and np.abs(places).max() <= 1.001
    assert drawn["colours"] is None or len(drawn["colours"]) == len(places)


def test_colours_are_colours_and_normals_are_not():
    places = np.array([[0, 0, 0], [1, 1, 1]], np.float32)
    shades = np.array([[0, 0, 1], [1, 0.5, 0]], np.float32)
    assert as_data(np.hstack([places, shades]))["colours"] == ["#0000ff", "#ff7f00"]
    assert as_data(np.hstack([places, shades * 255]))["colours"] == ["#0000ff", "#ff7f00"]
    assert as_data(np.hstack([places, shades - 0.5]))["colours"] is None
