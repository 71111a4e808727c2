"""Your own data: one JSON object a line, files by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assembler.registry import register
from components.datasets._manifest import EXAMPLE, Manifest, Record, lines


@register
class JsonLines(Manifest):
    """Rows of a JSON-lines file; `columns` says what each key holds. Files lie beside it and go by relative path.

    {"photo": "birds/001.png", "caption": "a robin"} with columns {photo: image, caption: text}. Parameters: 0.
    """

    type = "dataset.jsonl"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        columns = {"photo": "image", "caption": "text", "number": "label"}
        options = {"path": str(EXAMPLE / "rows.jsonl"), "columns": columns}
        return [({"data": {"type": cls.type, "options": options}}, None)]

    def records(self, path: Path) -> Iterator[Record]:
        for number, line in lines(path, "a JSON-lines file"):
            if line.strip():
                yield f"{path}:{number}", self._cells(line)

    def _cells(self, line: str) -> dict[str, Any] | str:
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            return f"not JSON ({error})"
        if not isinstance(cells, dict):
            cells = {}
        wrong = next(
            (n for n, kind in self.columns_.items() if kind != "text" and isinstance(cells.get(n), bool)), None
        )
        numbers = [n for n, kind in self.columns_.items() if kind in ("label", "score")]
        quoted = next((n for n in numbers if isinstance(cells.get(n), str)), wrong)
        return cells if quoted is None else {**cells, quoted: None}
