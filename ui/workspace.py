"""The workspace: the one folder that the page reads and writes, and nothing beyond it.

WORKSPACE/specs/     specs saved from the page
WORKSPACE/runs/      a folder a run
WORKSPACE/bundles/   a folder a bundle
WORKSPACE/data/      what datasets read
WORKSPACE/drafts/    what the editor saves by itself

The folder of a spec named on the command line is let in too, since its owner named it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assembler.check import check
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.problems import Problem
from assembler.spec import Spec, plain

WORKSPACE = "ASSEMBLER_WORKSPACE"
SPEC = "ASSEMBLER_SPEC"
NAME = re.compile(r"\w[\w.-]{0,63}")
PROSE = ("prompt", "system", "question")
"""Keys of texts that are never paths, whatever they look like."""
GALLERY = Path(__file__).resolve().parent.parent / "exports" / "gallery"
EXAMPLES = tuple(sorted((GALLERY.parents[1] / "components").glob("*/example")))
"""The samples that come with the parts; specs of the gallery read them."""


@dataclass(frozen=True)
class Workspace:
    """A folder, the folders let in beside it, and the spec that the server was started with."""

    root: Path
    opened: Path | None = None

    @classmethod
    def current(cls) -> Workspace:
        """The workspace that `assembler ui` was started in."""
        root = Path(os.environ.get(WORKSPACE, "exports")).resolve()
        opened = os.environ.get(SPEC)
        return cls(root, Path(opened).resolve() if opened else None)

    @property
    def specs(self) -> Path:
        return self.root / "specs"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    @property
    def drafts(self) -> Path:
        return self.root / "drafts"

    @property
    def roots(self) -> tuple[Path, ...]:
        """Every folder that may be read."""
        return (self.root, GALLERY, *EXAMPLES, *([self.opened.parent] if self.opened else []))

    def inside(self, path: Path) -> Path:
        """The path with every link followed.

        Raises:
            AssemblerError: it lies outside the workspace.
        """
        real = path.resolve()
        if not any(real.is_relative_to(root) for root in self.roots):
            raise AssemblerError(f"{path} lies outside the workspace {self.root}; put the file into it")
        return real

    def writable(self, path: Path) -> Path:
        """As `inside`, and neither in the gallery, unless the workspace holds it, nor among the samples.

        Raises:
            AssemblerError: nothing may be written there.
        """
        real = self.inside(path)
        if real.is_relative_to(GALLERY) and not GALLERY.is_relative_to(self.root):
            raise AssemblerError(f"{path} is in the gallery, which is only read; save it under another name")
        if any(real.is_relative_to(folder) for folder in EXAMPLES):
            raise AssemblerError(f"{path} is one of the samples, which are only read; save it elsewhere")
        return real

    def may_write(self, path: Path) -> bool:
        """Whether a file of the workspace may be written."""
        try:
            self.writable(path)
        except AssemblerError:
            return False
        return True

    def named(self, folder: Path, name: str, suffix: str = "") -> Path:
        """The path of a thing in a folder by its name.

        Raises:
            AssemblerError: the name is more than letters, digits, dots, dashes and underscores.
        """
        if not NAME.fullmatch(name):
            raise AssemblerError(f"{name!r} is no name; use up to 64 letters, digits, dots, dashes and underscores")
        return self.writable(folder / f"{name}{suffix}")

    def list_specs(self) -> list[Path]:
        """Specs that can be opened: the one the server was started with, then those saved here."""
        first = [self.opened] if self.opened else []
        return [*first, *(path for path in sorted(self.specs.glob("*.yaml")) if path not in first)]

    def check(self, spec: Spec) -> Graph:
        """`assembler.check.check` of a spec, or only its paths that lead outside where there are such."""
        problems = list(self.escapes(spec))
        return Graph(spec, problems=[*spec.problems, *problems]) if problems else check(spec)

    def escapes(self, spec: Spec) -> Iterator[Problem]:
        """A problem for each path in the spec that leads outside the workspace."""
        for keys, text, path in paths_in(plain(spec.tree)):
            try:
                self.inside(spec.base / path)
            except (AssemblerError, OSError, ValueError, RuntimeError):
                where = ".".join(map(str, keys))
                yield replace(
                    Problem(f"{where}: {text} leads outside the workspace; put the file into it"),
                    place=spec.place(*keys),
                    node=str(keys[1]) if len(keys) > 2 and keys[0] == "nodes" else None,
                )


def paths_in(tree: Any) -> Iterator[tuple[tuple[str | int, ...], str, Path]]:
    """(where it stands, the text, the path it names) of each text in a spec that names one."""
    for keys, text in _texts(tree):
        path = _path_in(keys, text)
        if path is not None:
            yield keys, text, path


def _texts(tree: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every text in a spec with where it stands."""
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from _texts(item, (*keys, key))
    elif isinstance(tree, list):
        for index, item in enumerate(tree):
            yield from _texts(item, (*keys, index))
    elif isinstance(tree, str):
        yield keys, tree


def _path_in(keys: tuple[str | int, ...], text: str) -> Path | None:
    """The path that a text of a spec names: a `file:` source, a `path`, or whatever looks like one that leads away."""
    word = text.strip()
    if word.startswith("file:"):
        return Path(word.removeprefix("file:")).expanduser()
    if keys[0] not in ("nodes", "adapters", "data") or keys[-1] in PROSE:
        return None
    path = Path(word)
    leads_away = path.is_absolute() or word.startswith("~") or ".." in path.parts
    return path.expanduser() if keys[-1] == "path" or leads_away else None
