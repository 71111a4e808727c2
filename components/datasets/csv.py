"""Your own data: a table of comma-separated values, files by name."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.registry import register
from components.datasets._manifest import EXAMPLE, Manifest, Record, lines


@register
class Csv(Manifest):
    """Rows of a CSV file whose first line names the columns; `columns` says what each of them that is used holds.

    Files lie beside it and go by relative path. A quoted cell may hold the separator and line feeds. Parameters: 0.
    """

    type = "dataset.csv"

    separator: str = Field(",", min_length=1, max_length=1, description="between cells; a tab for TSV")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        columns = {"photo": "image", "caption": "text", "number": "label"}
        options = {"path": str(EXAMPLE / "rows.csv"), "columns": columns}
        return [({"data": {"type": cls.type, "options": options}}, None)]

    def records(self, path: Path) -> Iterator[Record]:
        reader = csv.reader(
            (f"{line}\n" for _, line in lines(path, "a CSV file")), delimiter=self.separator, strict=True
        )
        try:
            header = next(reader, [])
            lacking = next((name for name in self.columns_ if header.count(name) != 1), None)
            if lacking is not None:
                how = "twice" if lacking in header else "not"
                raise AssemblerError(
                    f"{path}: the column {lacking} is {how} in its first line ({', '.join(header)[:200]})"
                )
            start = reader.line_num + 1
            for cells in reader:
                row = dict(zip(header, cells, strict=False))
                whole = len(cells) == len(header)
                if any(cell.strip() for cell in cells):
                    yield (
                        f"{path}:{start}",
                        row if whole else f"it has {len(cells)} cells, and the first line has {len(header)}",
                    )
                start = reader.line_num + 1
        except csv.Error as error:
            raise AssemblerError(f"{path}:{reader.line_num}: no CSV ({error}); correct the line") from error
