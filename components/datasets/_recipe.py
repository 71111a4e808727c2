"""Recipes: sets that are fetched, checked and prepared once, the same on every computer."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.files import aside, file_hash, write_text
from assembler.part import DatasetPart
from assembler.rows import FileRows, Row, Rows, Subset
from assembler.weights import cache_folder

MANIFEST = "rows.jsonl"


class Recipe(DatasetPart):
    """A set whose files come from packages with known digests and are prepared into a folder of the cache.

    The folder holds rows.jsonl, whose SHA-256 is `digest`, the files, and prepared.json, which says where they come
    from and under which licence.
    """

    source: ClassVar[str]
    licence: ClassVar[str]
    digest: ClassVar[str]
    kinds: ClassVar[dict[str, str]]

    limit: int | None = Field(None, ge=1, description="how many samples to take, by their hash; all by default")

    @property
    def folder(self) -> Path:
        """Where the prepared set lies."""
        return cache_folder() / "data" / f"{self.type.removeprefix('dataset.')}-{self.digest[:12]}"

    @abstractmethod
    def prepare(self, folder: Path, say: Callable[[str], None]) -> list[Row]:
        """Bring the set and write its files into `folder`; its rows, where `key` and the files' paths are strings."""

    def fetch(self, base: Path, say: Callable[[str], None] = lambda what: None) -> None:
        if self.folder.is_dir():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with aside(self.folder) as draft:
            draft.mkdir()
            rows = self.prepare(draft, say)
            write_text(draft / MANIFEST, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
            found = file_hash(draft / MANIFEST)
            if found != self.digest:
                raise AssemblerError(
                    f"{self.type}: the prepared set has the digest {found}, where {self.digest} was expected, and is "
                    "not kept; bring the recipe and its digest together"
                )
            about = {"source": self.source, "licence": self.licence, "rows": len(rows)}
            write_text(draft / "prepared.json", json.dumps(about, indent=2) + "\n")

    def manifest(self) -> list[Row]:
        """The prepared rows.

        Raises:
            AssemblerError: the set is not on this computer.
        """
        path = self.folder / MANIFEST
        if not path.is_file():
            name = self.type.removeprefix("dataset.")
            raise AssemblerError(f"{self.type} is not on this computer yet; run `assembler data fetch {name}`")
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def fields(self, base: Path) -> dict[str, str]:
        return dict(self.kinds)

    def chosen(self, row: Row) -> bool:
        """Whether a row is among those that the options ask for."""
        return True

    def made(self, row: Row) -> Row:
        """A prepared row as the columns of `fields`, files still as paths."""
        return {name: row[name] for name in self.kinds if name in row}

    def rows(self, base: Path) -> Rows:
        rows = [row for row in self.manifest() if self.chosen(row)]
        found = KeyedFiles(
            [self.made(row) for row in rows], [row["key"] for row in rows], self.kinds, self.folder, self.type
        )
        return limited(found, self.limit)

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"data": {"type": cls.type}}, None)]


class KeyedFiles(FileRows):
    """Rows of files that are known by the digests of their samples."""

    def __init__(self, rows: list[Row], keys: list[str], kinds: dict[str, str], folder: Path, name: str) -> None:
        super().__init__(rows, kinds, folder, [f"{name} row {index}" for index in range(len(rows))])
        self.keys = keys

    def key(self, index: int) -> str:
        return self.keys[index]


def limited(rows: Rows, limit: int | None) -> Rows:
    """The `limit` rows with the smallest keys, in their order; all where it is None."""
    if limit is None or limit >= len(rows):
        return rows
    chosen = sorted(range(len(rows)), key=rows.key)[:limit]
    return Subset(rows, sorted(chosen))
