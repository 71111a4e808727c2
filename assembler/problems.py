"""What is wrong with a spec, said so that a person can put it right."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Place:
    """A position in the spec file; line and column count from 1."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True)
class Fix:
    """A patch to the spec: operations `set` (path, value) or `rewire` (edge, edges), with what it does in words."""

    title: str
    operations: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where in the file, on which node and port, a sentence, and a fix when there is one."""

    message: str
    place: Place = field(default_factory=Place)
    node: str | None = None
    port: str | None = None
    fix: Fix | None = None

    def as_dict(self) -> dict[str, Any]:
        """The problem as plain data, for `--json` and the page."""
        return asdict(self)

    def render(self, file: str) -> str:
        """One line for a terminal: file:line:column, the sentence, and what `--fix` would do."""
        tail = f" (--fix: {self.fix.title})" if self.fix else ""
        return f"{file}:{self.place.line}:{self.place.column}: {self.message}{tail}"
