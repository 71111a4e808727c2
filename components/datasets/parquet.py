"""Your own data: a parquet file, files by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assembler.errors import AssemblerError, told
from assembler.registry import register
from components.datasets._manifest import EXAMPLE, Manifest, Record


@register
class Parquet(Manifest):
    """Rows of a parquet file; `columns` says what each of them that is used holds.

    Files lie beside it and go by relative path. Parameters: 0.
    """

    type = "dataset.parquet"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        columns = {"photo": "image", "caption": "text", "number": "label"}
        options = {"path": str(EXAMPLE / "rows.parquet"), "columns": columns}
        return [({"data": {"type": cls.type, "options": options}}, None)]

    def records(self, path: Path) -> Iterator[Record]:
        from pyarrow import parquet

        with told(f"{path} cannot be read; name a parquet file"), parquet.ParquetFile(path) as file:
            lacking = next((name for name in self.columns_ if name not in file.schema_arrow.names), None)
            if lacking is not None:
                raise AssemblerError(
                    f"{path} has no column {lacking}; it has {', '.join(file.schema_arrow.names)[:200]}"
                )
            number = 0
            for batch in file.iter_batches(columns=list(self.columns_)):
                for cells in batch.to_pylist():
                    yield f"{path} row {number}", cells
                    number += 1
