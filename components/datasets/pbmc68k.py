"""Blood cells: the reduced set of 10x Genomics' 68k that scanpy ships."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.registry import register
from assembler.rows import Row, Rows, digest
from assembler.weights import fetch, parse_source
from components.datasets._recipe import Recipe, limited
from components.datasets.h5ad import Cells

if TYPE_CHECKING:
    from assembler.h5ad import H5ad

SOURCE = "pypi:scanpy==1.11.5/scanpy/datasets/10x_pbmc68k_reduced.h5ad"
SHA256 = "e71d41e737c941559b7c57c9243bdb3d2c889c2adfdf00e3422ac6b46783676f"
FILE = "cells.h5ad"
WORDS = {
    "CD14+ Monocyte": "monocyte",
    "CD19+ B": "B cell",
    "CD34+": "stem cell",
    "CD4+/CD25 T Reg": "regulatory T cell",
    "CD4+/CD45RA+/CD25- Naive T": "naive helper T cell",
    "CD4+/CD45RO+ Memory": "memory T cell",
    "CD56+ NK": "natural killer cell",
    "CD8+ Cytotoxic T": "cytotoxic T cell",
    "CD8+/CD45RA+ Naive Cytotoxic": "naive cytotoxic T cell",
    "Dendritic": "dendritic cell",
}
"""The sorted fractions of the column bulk_labels, as one says them."""


@register
class Pbmc68k(Recipe):
    """700 blood cells with the values of 765 genes: `cell`, its type as a `word`, its `label` 0-9, a `question`.

    The values are the file's `raw`, which for all its name holds natural logarithms of normalised counts: read them
    with `normalise: none`. The types are the file's bulk_labels, the purified fraction that a cell resembles most (10
    types, from 240 dendritic cells to 8 naive helper T cells); its other column of groups, louvain, has numbers and no
    names. A cell is known by the hash of its values. Source: scanpy 1.11.5, made of 10x Genomics' "Fresh 68k PBMCs
    (Donor A)" of Zheng et al., "Massively parallel digital transcriptional profiling of single cells" (2017); CC BY
    4.0. Parameters: 0.
    """

    type = "dataset.pbmc68k"
    source = SOURCE
    licence = "CC BY 4.0, 10x Genomics; in the file as scanpy prepared it (BSD-3-Clause)"
    digest = "bb3587150a249a5aa86aada8077caaca825c796e4b59989153cbfcfe1f0ad84b"
    kinds = {"cell": "expression", "word": "text", "label": "label", "question": "text"}

    question: str = Field("Which cell is this?", max_length=1000, description="the text of the column `question`")

    def prepare(self, folder: Path, say: Callable[[str], None]) -> list[Row]:
        from assembler.h5ad import H5ad

        say("scanpy (2 MB of cells)")
        shutil.copyfile(fetch(parse_source(SOURCE), folder, SHA256), folder / FILE)
        file = H5ad(folder / FILE, "raw")
        kinds = file.column("bulk_labels")
        labels = {kind: place for place, kind in enumerate(sorted(WORDS))}
        return [
            {
                "key": digest(file.cell(index).values.tobytes()),
                "word": WORDS[str(kind)],
                "label": labels[str(kind)],
            }
            for index, kind in enumerate(kinds)
        ]

    def rows(self, base: Path) -> Rows:
        from assembler.h5ad import H5ad

        rows = self.manifest()
        columns: dict[str, Sequence[Any]] = {name: [row[name] for row in rows] for name in ("word", "label")}
        columns["question"] = [self.question] * len(rows)
        return limited(KeyedCells(H5ad(self.folder / FILE, "raw"), columns, [row["key"] for row in rows]), self.limit)


class KeyedCells(Cells):
    """Cells that are known by the digests of their values."""

    def __init__(self, file: H5ad, columns: dict[str, Sequence[Any]], keys: list[str]) -> None:
        super().__init__(file, columns)
        self.keys = keys

    def key(self, index: int) -> str:
        return self.keys[index]
