"""Rows of data: opened when they are asked for, known by what they hold, named by where they stand."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from assembler.errors import AssemblerError
from assembler.readers import READERS

Row = dict[str, Any]


class Placed(dict[str, Any]):
    """A row that knows its place, so that what is wrong with it is told with it wherever that turns out."""

    place = ""

    @classmethod
    def at(cls, place: str, row: Row) -> Placed:
        """The row, at its place."""
        found = cls(row)
        found.place = place
        return found


class Rows(Sequence[Row]):
    """Rows in a fixed order. `rows[i]` opens what row i names; `plain(i)` opens nothing.

    A row's `key` says what it holds, so that its side of the split and its place in a cache stay whatever rows come
    and go around it; `place` says where a person finds it.
    """

    @abstractmethod
    def row(self, index: int) -> Row:
        """The row with everything in it opened.

        Raises:
            AssemblerError: something in it cannot be; the sentence begins with the row's place.
        """

    def plain(self, index: int) -> Row:
        """What is known of the row without opening a file: its texts and numbers, at least."""
        return self.row(index)

    @abstractmethod
    def key(self, index: int) -> str:
        """What the row is known by."""

    def place(self, index: int) -> str:
        """Where the row stands: a file and line, or its number."""
        return f"row {index}"

    def only_learned(self, index: int) -> bool:
        """Whether the row is never held out, such as a synthetic one."""
        return False

    def only_held_out(self, index: int) -> bool:
        """Whether the row is never learned from, such as one of a set's own test part."""
        return False

    def require(self) -> None:
        """See that every row is written as it must be, without opening a file.

        Raises:
            AssemblerError: the first row that is not.
        """

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Subset: ...
    def __getitem__(self, index: int | slice) -> Row | Subset:
        if isinstance(index, slice):
            return Subset(self, range(len(self))[index])
        index = range(len(self))[index]
        return Placed.at(self.place(index), self.row(index))

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))


class Subset(Rows):
    """Some rows of others, by their indices."""

    def __init__(self, rows: Rows, indices: Sequence[int]) -> None:
        self.rows, self.indices = rows, indices

    def __len__(self) -> int:
        return len(self.indices)

    def row(self, index: int) -> Row:
        return self.rows.row(self.indices[index])

    def plain(self, index: int) -> Row:
        return self.rows.plain(self.indices[index])

    def key(self, index: int) -> str:
        return self.rows.key(self.indices[index])

    def place(self, index: int) -> str:
        return self.rows.place(self.indices[index])

    def only_learned(self, index: int) -> bool:
        return self.rows.only_learned(self.indices[index])

    def only_held_out(self, index: int) -> bool:
        return self.rows.only_held_out(self.indices[index])


class Plain(Rows):
    """Rows that are all in memory, known by their number."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        return self.rows[index]

    def key(self, index: int) -> str:
        return str(index)


class FileRows(Rows):
    """Rows of a manifest: texts and numbers as they stand, and the files that the columns of other kinds name.

    `kinds` gives each column's kind; `places` where each row stands; `problems` what is wrong with a row as it is
    written. A file's path is relative to `folder` and leads nowhere out of it.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        kinds: dict[str, str],
        folder: Path,
        places: Sequence[str],
        problems: Mapping[int, str] | None = None,
    ) -> None:
        self.rows, self.folder, self.places, self.problems = rows, folder.resolve(), places, problems or {}
        self.files = {name: READERS[kind] for name, kind in kinds.items() if kind in READERS}

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, index: int) -> Row:
        if index in self.problems:
            raise AssemblerError(f"{self.places[index]}: {self.problems[index]}")
        row = self.rows[index]
        try:
            return {**row, **{name: self.opened(row[name], reader) for name, reader in self.files.items()}}
        except AssemblerError as error:
            raise AssemblerError(f"{self.places[index]}: {error}") from error

    def plain(self, index: int) -> Row:
        return self.rows[index]

    def key(self, index: int) -> str:
        return digest(json.dumps(self.rows[index], sort_keys=True, ensure_ascii=False, default=repr).encode())

    def place(self, index: int) -> str:
        return self.places[index]

    def require(self) -> None:
        if self.problems:
            self.row(min(self.problems))

    def opened(self, name: str, reader: Callable[[Path], Any]) -> Any:
        """The sample in the file `name`."""
        return reader(inside(self.folder, name))


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder.

    Raises:
        AssemblerError: it lies outside.
    """
    path = (folder / name).resolve() if "\0" not in name else None
    if path is None or not path.is_relative_to(folder):
        raise AssemblerError(f"{name!r} lies outside {folder}; keep the files beside the manifest")
    return path


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def as_rows(rows: Sequence[Row]) -> Rows:
    """The rows themselves, or those of a plain sequence, known by their number."""
    return rows if isinstance(rows, Rows) else Plain(rows)
