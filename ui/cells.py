"""A cell on the page: the genes that speak loudest in it, and its place among others."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from assembler.errors import AssemblerError
from assembler.h5ad import H5ad
from assembler.samples import Cell

TOP = 12
OTHERS = 400
"""Cells beside the one, at most, evenly chosen."""
VARYING = 1000
"""Genes that the map is made of: those that vary most."""


@st.cache_resource(max_entries=4, show_spinner="Reading the cells")
def opened(name: str, content: bytes) -> H5ad:
    """An uploaded h5ad file; what is read later is read from the open file, which has no name any more.

    Raises:
        AssemblerError: it is none; the sentence names the file as the user knows it.
    """
    with tempfile.TemporaryDirectory(prefix="assembler-") as folder:
        path = Path(folder) / "upload.h5ad"
        path.write_bytes(content)
        try:
            return H5ad(path)
        except AssemblerError as error:
            raise AssemblerError(str(error).replace(str(path), name)) from error


def chosen(name: str, file: H5ad) -> tuple[Cell, list[Cell], int]:
    """The cell that the user chooses, the others beside it, and its place in their list."""
    number = int(st.number_input("Cell", 1, len(file), 1, key=f"cell-{name}"))
    count = min(OTHERS, len(file))
    places = sorted({number - 1, *np.linspace(0, len(file) - 1, count).astype(int).tolist()})
    return file.cell(number - 1), [file.cell(i) for i in places], places.index(number - 1)


def show_cell(cell: Cell, others: Sequence[Cell], index: int) -> None:
    """Draw the top genes, and the map with the cell on it where there are others to compare it with."""
    import altair
    import pandas

    names, values = top_genes(cell)
    bars = altair.Chart(pandas.DataFrame({"gene": names, "value": values})).mark_bar(cornerRadiusEnd=3)
    bars = bars.encode(
        x=altair.X("value:Q", title="counts" if cell.raw else "value"), y=altair.Y("gene:N", sort=None, title=None)
    )
    kind = "raw counts" if cell.raw else "normalised"
    st.caption(f"{int((cell.values > 0).sum()):,} of {len(cell.genes):,} genes are seen, {kind}; the highest:")
    st.altair_chart(bars.properties(height=230), width="stretch", alt="The genes with the highest values")
    if len(others) < 3:
        return
    spots = pandas.DataFrame(cell_map(others), columns=["1", "2"])
    spots["cell"] = ["this one" if i == index else "others" for i in range(len(others))]
    scale = altair.Scale(domain=["others", "this one"], range=["#adb5bd", "#e8590c"])
    colour = altair.Color("cell:N", scale=scale, legend=None)
    points = altair.Chart(spots.sort_values("cell")).mark_circle(opacity=0.85)
    axes: dict[str, Any] = {"title": None, "axis": altair.Axis(labels=False, ticks=False, grid=False)}
    size = altair.condition("datum.cell == 'this one'", altair.value(160), altair.value(24))
    points = points.encode(x=altair.X("1:Q", **axes), y=altair.Y("2:Q", **axes), color=colour, size=size)
    st.caption(f"Its place among {len(others) - 1:,} others: the two directions in which they differ most")
    st.altair_chart(points.properties(height=230), width="stretch", alt="The cells as points, this one marked")


def top_genes(cell: Cell) -> tuple[list[str], list[float]]:
    """The genes with the highest values, the highest first, by the first of each one's names."""
    order = np.argsort(-cell.values, kind="stable")[:TOP]
    return [cell.genes[i].split()[0] for i in order], [float(cell.values[i]) for i in order]


def cell_map(cells: Sequence[Cell]) -> np.ndarray:
    """[N, 2]: the cells on their first two principal components, of ln(1 + 10,000 x / sum x) where they are counts."""
    table = np.stack([cell.values for cell in cells]).astype(np.float64)  # [N, G]
    if cells[0].raw:
        table = np.log1p(1e4 * table / np.maximum(table.sum(1, keepdims=True), 1.0))
    varying = np.argsort(-table.var(0), kind="stable")[:VARYING]
    table = table[:, varying] - table[:, varying].mean(0)
    left, scale, _ = np.linalg.svd(table, full_matrices=False)
    return (left * scale)[:, :2] if table.shape[1] > 1 else np.pad(left * scale, ((0, 0), (0, 1)))
