"""Your own data: one JSON object a line, pictures named by file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import DatasetPart
from assembler.registry import register


class Rows(Sequence[dict[str, Any]]):
    """Rows whose pictures are opened when they are asked for."""

    def __init__(self, rows: list[dict[str, Any]], images: list[str], folder: Path) -> None:
        self.plain, self.images, self.folder = rows, images, folder

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Rows(self.plain[index], self.images, self.folder)
        row = self.plain[index]
        return {**row, **{name: self._open(row[name]) for name in self.images}}

    def _open(self, name: str) -> Any:
        from assembler.bundle.processor import open_image

        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise AssemblerError(f"{name} lies outside {self.folder}; keep the pictures beside the manifest")
        return open_image(path)


@register
class JsonLines(DatasetPart):
    """Rows of a JSON-lines file; `columns` says what each key holds. Pictures are files beside it, by relative path.

    {"photo": "birds/001.png", "caption": "a robin"} with columns {photo: image, caption: text}. Parameters: 0.
    """

    type = "dataset.jsonl"

    path: str = Field(description="the file, relative to the spec")
    columns_: dict[str, Literal["image", "text", "label"]] = Field(alias="columns", min_length=1)

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        path = str(Path(__file__).parent / "example" / "rows.jsonl")
        columns = {"photo": "image", "caption": "text", "number": "label"}
        return [({"data": {"type": cls.type, "options": {"path": path, "columns": columns}}}, None)]

    def fields(self, base: Path) -> dict[str, str]:
        return dict(self.columns_)

    def rows(self, base: Path) -> Sequence[dict[str, Any]]:
        path = base / self.path
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: a text may hold U+2028
        except (OSError, UnicodeDecodeError) as error:
            raise AssemblerError(f"{path} cannot be read ({error}); name a JSON-lines file in UTF-8") from error
        rows = [self._row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
        images = [name for name, kind in self.columns_.items() if kind == "image"]
        return Rows(rows, images, path.parent)

    def _row(self, path: Path, number: int, line: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AssemblerError(f"{path}:{number}: not JSON ({error})") from error
        for name, kind in self.columns_.items():
            wanted = int if kind == "label" else str
            if not isinstance(row, dict) or not isinstance(row.get(name), wanted):
                word = "a whole number" if wanted is int else "a text"
                raise AssemblerError(f"{path}:{number}: {name} must be {word}; correct the line or the columns")
        return {name: row[name] for name in self.columns_}
