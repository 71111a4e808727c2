"""Your own data: one folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from assembler.errors import AssemblerError
from assembler.part import DatasetPart
from assembler.registry import register
from assembler.rows import FileRows
from components.datasets._manifest import EXAMPLE


@register
class Folder(DatasetPart):
    """Files in a folder for each class: the sample under its `kind`, its `word` and `label`, and a `question`.

    `word` is the folder's name with spaces for underscores, `label` its number in the order of names. Files of
    folders within a class are its own; what begins with a dot is left out. Parameters: 0.
    """

    type = "dataset.folder"

    path: str = Field(description="the folder, relative to the spec")
    kind: Literal["image", "audio", "points", "video"] = Field("image", description="what the files hold")
    question: str = Field("What is this?", max_length=1000, description="the text of the column `question`")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"data": {"type": cls.type, "options": {"path": str(EXAMPLE / "classes")}}}, None)]

    def fields(self, base: Path) -> dict[str, str]:
        return {self.kind: self.kind, "word": "text", "label": "label", "question": "text"}

    def rows(self, base: Path) -> FileRows:
        folder = base / self.path
        if not folder.is_dir():
            raise AssemblerError(f"{folder} is no folder; name one that has a folder for each class")
        classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        files = {
            str(file.relative_to(folder)): {"word": name.name.replace("_", " "), "label": label}
            for label, name in enumerate(classes)
            for file in sorted(name.rglob("*"))
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        }
        rows = [{self.kind: file, **named, "question": self.question} for file, named in files.items()]
        if not rows:
            raise AssemblerError(f"{folder} has no folders with files in them; put a folder there for each class")
        return FileRows(rows, self.fields(base), folder, [str(folder / file) for file in files])
