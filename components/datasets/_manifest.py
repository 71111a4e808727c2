"""What manifests share: columns of declared kinds, each row checked as it is written, files opened when asked for."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import DatasetPart
from assembler.readers import READERS
from assembler.rows import FileRows, Row

Kind = Literal["image", "video", "audio", "points", "expression", "text", "label", "score"]
Record = tuple[str, Row | str]
"""Where a row stands, and its cells or what is wrong with it."""

EXAMPLE = Path(__file__).parent / "example"


class Manifest(DatasetPart):
    """Rows of a file whose columns are texts, numbers, or names of files beside it, by relative path."""

    path: str = Field(description="the file, relative to the spec")
    columns_: dict[str, Kind] = Field(alias="columns", min_length=1, description="column -> its kind")

    def fields(self, base: Path) -> dict[str, str]:
        return dict(self.columns_)

    @abstractmethod
    def records(self, path: Path) -> Iterable[Record]:
        """Every row as it is written.

        Raises:
            AssemblerError: the file cannot be read, or lacks a column.
        """

    def rows(self, base: Path) -> FileRows:
        self._check_kinds()
        path = base / self.path
        found, places, problems = [], [], {}
        for index, (place, cells) in enumerate(self.records(path)):
            row, problem = ({"": cells}, cells) if isinstance(cells, str) else typed(cells, self.columns_)
            found.append(row)
            places.append(place)
            if problem:
                problems[index] = problem
        return FileRows(found, dict(self.columns_), path.parent, places, problems)

    def _check_kinds(self) -> None:
        unread = next((k for k in self.columns_.values() if k not in (*READERS, "text", "label", "score")), None)
        if unread:
            raise AssemblerError(f"{self.type} reads no files of {unread}; use a dataset that is made for them")


def typed(cells: Row, kinds: dict[str, Kind]) -> tuple[Row, str]:
    """A row's cells as its columns' kinds have them, and what is wrong, or nothing."""
    row: Row = {}
    for name, kind in kinds.items():
        cell = cells.get(name)
        try:
            row[name] = CELLS.get(kind, _text)(cell)
        except (ValueError, TypeError):
            return cells, f"{name} must be {WORDS.get(kind, 'a text')}; correct the line or the columns"
    return row, ""


def _text(cell: Any) -> str:
    if not isinstance(cell, str):
        raise TypeError
    return cell


def _label(cell: Any) -> int:
    if isinstance(cell, bool | float):
        raise TypeError
    return int(cell)


def _score(cell: Any) -> float:
    number = float(_label(cell) if isinstance(cell, bool) else cell)
    if not math.isfinite(number):
        raise ValueError
    return number


CELLS = {"label": _label, "score": _score}
WORDS = {"label": "a whole number", "score": "a number"}


def lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file and their numbers; a text may hold U+2028, so that only line feeds part them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AssemblerError(f"{path} cannot be read ({error}); name {what} in UTF-8") from error
    return enumerate(text.split("\n"), 1)
