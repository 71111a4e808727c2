"""The spec: a YAML file read into typed models, each value with its line and column, and written back unharmed."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from assembler.errors import AssemblerError
from assembler.files import write_text
from assembler.problems import Place, Problem
from assembler.suggest import nearest

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_EVENTS = 10_000
EDGE = re.compile(r"\s*([A-Za-z_][\w-]*)\s*->\s*([A-Za-z_][\w-]*)(?:\.([A-Za-z_][\w-]*))?\s*")
ID = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Stage(Strict):
    """One stretch of training: which nodes and adapters learn, on whose losses, for how long and how fast.

    `objectives` names the nodes and adapters whose losses count, all by default; what none of them needs is not
    computed. With `consistency` every batch runs twice, and that times the symmetric KL divergence of the two
    predictions is added.
    """

    name: str = Field(pattern=ID)
    train: list[str] = Field(min_length=1)
    objectives: list[str] | None = None
    steps: int = Field(100, ge=1, le=10_000_000)
    batch: int = Field(8, ge=1, le=65_536)
    lr: float = Field(1e-3, gt=0, le=100)
    warmup: int = Field(0, ge=0, le=1_000_000)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    weight_decay: float = Field(0.0, ge=0, le=10)
    clip: float = Field(1.0, gt=0)
    consistency: float = Field(0.0, ge=0, le=1000)
    save_every: int = Field(50, ge=1)
    precision: Literal["fp32", "bf16"] = "fp32"


class Sampling(Strict):
    """How often training sees the groups of rows that the column `by` tells apart, such as the tasks of a mixture.

    A group of n rows has the share n^(1 / temperature) of an epoch, over the sum of all: at 1 each row comes once, and
    the higher the temperature, the more alike the groups are. No row is left out, so that those of small groups come
    again.
    """

    by: str
    temperature: float = Field(1.0, ge=1, le=1000)


class Data(Strict):
    """Where samples come from: a dataset part, how its columns feed inputs and slots, what is held out, and the metrics
    of answers to it, by default those usual for their kind.

    What is held out is the `fold`-th share of that size, so that the folds 0 to 4 of `held_out: 0.2` hold out every row
    once. A row that cannot be read ends the run, or with `on_bad: skip` is left out, counted and named.
    """

    type: str
    options: dict[str, Any] = {}
    columns: dict[str, str] = {}
    held_out: float = Field(0.2, ge=0, lt=1)
    fold: int = Field(0, ge=0, le=1_000_000)
    metrics: list[str] = Field([], max_length=20)
    seed: int = Field(0, ge=0, le=2**31)
    sample: Sampling | None = None
    on_bad: Literal["fail", "skip"] = "fail"

    @model_validator(mode="after")
    def _within(self) -> Data:
        if self.fold and (self.fold + 1) * self.held_out > 1 + 1e-9:
            last = int(1 / self.held_out + 1e-9) - 1
            raise ValueError(
                f"`fold` {self.fold} of `held_out` {self.held_out:g} lies past all rows; {last} is the last"
            )
        return self


class Group(Strict):
    """A frame around nodes on the page, with a comment."""

    nodes: list[str] = Field(max_length=1000)
    note: str = Field("", max_length=10_000)


class Document(Strict):
    """The whole spec, format version 1."""

    assembler: Literal[1]
    name: str = Field("model", pattern=r"^[\w][\w .-]{0,99}$")
    nodes: dict[str, dict[str, Any]] = Field(default={}, max_length=1000)
    edges: list[str] = Field(default=[], max_length=10_000)
    adapters: dict[str, dict[str, Any]] = Field(default={}, max_length=1000)
    compose: dict[str, Annotated[str, Field(max_length=10_000)]] = Field(default={}, max_length=1000)
    data: Data | None = None
    stages: list[Stage] = Field(default=[], max_length=100)
    layout: dict[str, tuple[float, float]] = {}
    groups: dict[str, Group] = Field(default={}, max_length=1000)
    seed: int = Field(0, ge=0, le=2**31)


@dataclass(frozen=True)
class Edge:
    """A wire from a node's output to a node's input port; `port` is `in` unless the spec names one."""

    source: str
    target: str
    port: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}" + ("" if self.port == "in" else f".{self.port}")


@dataclass
class Spec:
    """A parsed spec: the document (None when too broken), the raw tree with places, and what was wrong in reading."""

    path: Path
    document: Document | None
    tree: Any = None
    problems: list[Problem] = field(default_factory=list)
    indent: int = 0
    """Columns from a list's key to its items, where the file indents them."""

    root: Path | None = None
    """The folder that relative `file:` sources start from, where it is not the spec's own."""

    @property
    def base(self) -> Path:
        """The folder that relative `file:` sources start from."""
        return self.root or self.path.parent

    def place(self, *keys: str | int) -> Place:
        """Where the value at `keys` stands in the file; the nearest parent that has a position otherwise."""
        return place_of(self.tree, keys)

    def dump(self) -> str:
        """The YAML text with comments and order kept."""
        stream, yaml = io.StringIO(), _yaml()
        if self.indent:
            yaml.indent(mapping=2, sequence=self.indent, offset=self.indent - 2)
        yaml.dump(self.tree, stream)
        return stream.getvalue()

    def save(self, path: Path | None = None) -> None:
        """Write the YAML aside and rename it into place."""
        write_text(path or self.path, self.dump())


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 4096
    return yaml


def place_of(tree: Any, keys: tuple[str | int, ...]) -> Place:
    """The file position of `keys` in a ruamel tree."""
    place = Place()
    for key in keys:
        marks = getattr(tree, "lc", None)
        data = getattr(marks, "data", None) or {}
        if marks is None or key not in data:
            break
        line, column = data[key][:2]
        place = Place(line + 1, column + 1)
        tree = tree[key]
    return place


def read(path: Path) -> Spec:
    """Read a spec file; what is wrong with it is in `problems`, never an exception."""
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= MAX_BYTES else ""
    except UnicodeDecodeError as error:
        return _broken(path, f"the file is not UTF-8 text (byte {error.start}); save it as UTF-8")
    except OSError as error:
        return _broken(path, f"the file cannot be read: {error.strerror}; check the path")
    if size > MAX_BYTES:
        return _broken(path, f"the file has {size:,} bytes; a spec has at most {MAX_BYTES:,}")
    return parse(text, path)


def parse(text: str, path: Path = Path("spec.yaml")) -> Spec:
    """Parse spec text. Anchors and aliases are refused: a spec says each thing once, and bombs are made of them."""
    try:
        refusal = _refusal(text)
        if refusal is not None:
            return _broken(path, *refusal)
        tree = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _broken(path, f"not valid YAML: {error.problem or error.context}".strip(), mark)
    except (YAMLError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        return _broken(path, f"not valid YAML: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    if not isinstance(tree, dict):
        return _broken(path, "a spec is a mapping; start it with `assembler: 1`")
    return _typed(tree, path)


def _refusal(text: str) -> tuple[str, Any] | None:
    """What YAML allows and a spec does not, told from the events before anything is built, and where it stands."""
    depth = 0
    for count, event in enumerate(_yaml().parse(io.StringIO(text))):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):
            return "aliases (*name) are not part of a spec; write the value out", event.start_mark
        if count > MAX_EVENTS:
            return f"the file has more than {MAX_EVENTS:,} keys, values and brackets; split the graph", event.start_mark
        if depth > MAX_DEPTH:
            return f"lists and mappings are nested deeper than {MAX_DEPTH}; a spec is flat", event.start_mark
        if getattr(event, "tag", None) is not None:
            return "tags (!name) are not part of a spec; write a plain value", event.start_mark
    return None


def _broken(path: Path, message: str, mark: Any = None) -> Spec:
    place = Place(mark.line + 1, mark.column + 1) if mark is not None else Place()
    return Spec(path, None, None, [Problem(message, place)])


def _typed(tree: Any, path: Path) -> Spec:
    try:
        return Spec(path, Document.model_validate(plain(tree)), tree, indent=_indent(tree))
    except ValidationError as error:
        problems = [validation_problem(item, tree, (), Document) for item in error.errors()]
        return Spec(path, None, tree, problems)
    except RecursionError:
        return _broken(path, "the spec is nested too deeply")


def _indent(tree: Any) -> int:
    """4 where a block list of the spec stands two columns in from its key, as people often write it."""
    for item in tree.values():
        marks = getattr(item, "lc", None)
        if (
            marks is not None
            and isinstance(item, CommentedSeq)
            and item
            and not item.fa.flow_style()
            and marks.col >= 2
        ):
            return 4
    return 0


def plain(tree: Any) -> Any:
    """ruamel's round-trip types as plain dict, list and scalars."""
    if isinstance(tree, dict):
        return {str(key): plain(item) for key, item in tree.items()}
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    for kind in (bool, int, float, str):
        if isinstance(tree, kind):
            return kind(tree)
    return tree


def validation_problem(item: Any, tree: Any, prefix: tuple[str | int, ...], model: type[BaseModel]) -> Problem:
    """One pydantic error as a problem with its place, and the nearest known key for an unknown one."""
    keys = prefix + tuple(item["loc"])
    name = ".".join(map(str, keys)) or "spec"
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        return Problem(f"{name}: unknown key{nearest(str(keys[-1]), known)}", place_of(tree, keys))
    if item["type"] == "missing":
        return Problem(f"{name}: this key is required and missing", place_of(tree, keys))
    message = item["msg"].removeprefix("Value error, ")
    return Problem(f"{name}: {message[0].lower()}{message[1:]}", place_of(tree, keys))


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys a model knows at `loc`; only the spec's own fixed nesting is followed."""
    inner: dict[str, type[BaseModel]] = {"data": Data, "stages": Stage}
    here = inner.get(str(loc[0]), model) if loc and model is Document else model
    return list(here.model_fields)


def parse_edge(text: str) -> Edge | None:
    """`a -> b` or `a -> b.port`; None when it is neither."""
    match = EDGE.fullmatch(text)
    return Edge(match[1], match[2], match[3] or "in") if match else None


def override(spec: Spec, setting: str) -> Spec:
    """The spec with one value set from text such as `stages.align.steps=50`; list items go by their `name`.

    Raises:
        AssemblerError: the text is not of that form, or names no place in the spec.
    """
    path, equals, text = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise AssemblerError(f"--set {setting}: write it like stages.align.steps=50")
    tree = spec.tree
    for depth, key in enumerate(keys[:-1]):
        found = _inner(tree, key)
        if found is None:
            known = [str(item.get("name")) for item in tree] if isinstance(tree, list) else list(tree)
            raise AssemblerError(
                f"--set {setting}: no {'.'.join(keys[: depth + 1])} in {spec.path}{nearest(key, known)}"
            )
        tree = found
    if not isinstance(tree, dict):
        raise AssemblerError(f"--set {setting}: {'.'.join(keys[:-1])} has no keys to set")
    try:
        tree[keys[-1]] = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise AssemblerError(f"--set {setting}: {text!r} is not a YAML value") from error
    changed = parse(spec.dump(), spec.path)
    changed.root = spec.root
    return changed


def _inner(tree: Any, key: str) -> Any:
    if isinstance(tree, list):
        return next((item for item in tree if isinstance(item, dict) and item.get("name") == key), None)
    return tree.get(key) if isinstance(tree, dict) and isinstance(tree.get(key), dict | list) else None
