"""Sets in the form of Hugging Face `datasets`, from the hub or a folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from assembler.errors import AssemblerError, told
from assembler.part import DatasetPart
from assembler.readers import READERS, Held
from assembler.registry import register
from assembler.rows import Row, Rows, digest, inside
from assembler.weights import parse_source
from components.datasets._manifest import EXAMPLE, typed

SAVED = "state.json"
"""A folder has this file when `datasets` itself wrote it with save_to_disk."""


@register
class HuggingFace(DatasetPart):
    """Rows of a set of Hugging Face `datasets`; `columns` says what each of them that is used holds.

    `source` is hf:ORG/NAME[@REVISION], or file:FOLDER: one that `save_to_disk` wrote, or of parquet, JSON, CSV or
    picture files. `streaming` reads the first `limit` rows over the network without fetching the rest, and keeps them
    in memory. No code of a repository is run. Parameters: 0.
    """

    type = "dataset.hf"

    source: str = Field(description="hf:ORG/NAME[@REVISION] or file:FOLDER")
    columns_: dict[str, Literal["image", "audio", "text", "label", "score"]] = Field(alias="columns", min_length=1)
    name: str | None = Field(None, max_length=200, description="the set's configuration, where it has several")
    split: str = Field("train", max_length=200, description="which of its splits to read")
    streaming: bool = Field(False, description="read the first `limit` rows and leave the rest where they are")
    limit: int | None = Field(None, ge=1, description="how many rows to take, from the first")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        columns = {"photo": "image", "caption": "text", "number": "label"}
        options = {"source": f"file:{EXAMPLE / 'embedded'}", "columns": columns}
        streamed = {**options, "streaming": True, "limit": 2}
        return [({"data": {"type": cls.type, "options": one}}, None) for one in (options, streamed)]

    @field_validator("source")
    @classmethod
    def _known(cls, source: str) -> str:
        if parse_source(source).kind not in ("hf", "file"):
            raise ValueError("`source` is hf:ORG/NAME[@REVISION] or file:FOLDER")
        return source

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.streaming and self.limit is None:
            raise ValueError("`streaming` needs `limit`, how many rows to read")
        return self

    def fields(self, base: Path) -> dict[str, str]:
        return dict(self.columns_)

    def rows(self, base: Path) -> Rows:
        import datasets

        source = parse_source(self.source)
        folder = (base / (source.path or "")).resolve() if source.kind == "file" else None
        if folder is not None and not folder.is_dir():
            raise AssemblerError(f"{folder} is no folder; name one that holds the set")
        with told(f"{self.source} is no set that `datasets` can read"):
            found = self._loaded(folder)
            lacking = next((name for name in self.columns_ if name not in (found.column_names or self.columns_)), None)
            if lacking is not None:
                raise AssemblerError(f"{self.source} has no column {lacking}; it has {', '.join(found.column_names)}")
            found = found.select_columns(list(self.columns_))
            undecoded = {"image": datasets.Image(decode=False), "audio": datasets.Audio(decode=False)}
            for name, kind in self.columns_.items():
                if kind in undecoded:
                    found = found.cast_column(name, undecoded[kind])
            if self.streaming:
                found = list(itertools.islice(found, self.limit))
            elif self.limit is not None:
                found = found.select(range(min(self.limit, len(found))))
        root = folder or Path(datasets.config.HF_CACHE_HOME).resolve()
        return HubRows(found, dict(self.columns_), root, self.source)

    def _loaded(self, folder: Path | None) -> Any:
        import datasets

        if folder is not None and (folder / SAVED).is_file():
            found = datasets.load_from_disk(folder)
            return found.to_iterable_dataset() if self.streaming else found
        source = parse_source(self.source)
        return datasets.load_dataset(
            str(folder or source.name),
            self.name,
            split=self.split,
            revision=source.revision,
            streaming=self.streaming,
        )


class HubRows(Rows):
    """Rows of a table of `datasets` whose pictures and sounds are still bytes, or paths within `root`."""

    def __init__(self, table: Sequence[Row], kinds: dict[str, Any], root: Path, name: str) -> None:
        self.table, self.kinds, self.root, self.name = table, kinds, root, name
        self.files = [column for column, kind in kinds.items() if kind in READERS]

    def __len__(self) -> int:
        return len(self.table)

    def row(self, index: int) -> Row:
        row = self.plain(index)
        try:
            return {**row, **{name: self._opened(row[name], READERS[self.kinds[name]]) for name in self.files}}
        except AssemblerError as error:
            raise AssemblerError(f"{self.place(index)}: {error}") from error

    def plain(self, index: int) -> Row:
        cells = dict(self.table[index])
        plain = {name: kind for name, kind in self.kinds.items() if name not in self.files}
        row, problem = typed(cells, plain)
        if problem:
            raise AssemblerError(f"{self.place(index)}: {problem}")
        return {**row, **{name: cells[name] for name in self.files}}

    def key(self, index: int) -> str:
        row = self.table[index]
        files = [
            digest(row[name].get("bytes") or str(row[name].get("path")).encode()) for name in self.files if row[name]
        ]
        plain = {name: cell for name, cell in row.items() if name not in self.files}
        return digest(json.dumps([plain, files], sort_keys=True, default=repr).encode())

    def place(self, index: int) -> str:
        return f"{self.name} row {index}"

    def _opened(self, cell: Any, reader: Callable[[Any], Any]) -> Any:
        if not isinstance(cell, dict):
            raise AssemblerError("a picture or sound is missing; take the row out")
        if cell.get("bytes"):
            return reader(Held(cell["bytes"], cell.get("path") or "its bytes"))
        return reader(inside(self.root, cell.get("path") or ""))
