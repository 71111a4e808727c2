"""What travels between the browser and Python: typed once, at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.problems import Problem
from assembler.spec import MAX_BYTES
from ui.document import EditorDocument


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SentDocument(Message):
    base: str = Field(max_length=MAX_BYTES)
    graph: dict[str, Any]


class Request(Message):
    """What the browser asks for; it comes with every message until it was answered, and is done once."""

    id: str = Field(max_length=100)
    name: Literal["save", "read", "discard"]
    text: str | None = Field(None, max_length=MAX_BYTES)
    path: str | None = Field(None, max_length=200)


class Sent(Message):
    """The whole document, as one tab has it after its gesture number `rev`.

    `parent` is the version of Python's that the tab has seen; `force` says that the user has seen another tab's and
    wants this one.
    """

    tab: str = Field(max_length=100)
    id: str = Field(max_length=400)
    parent: int
    rev: int
    force: bool = False
    document: SentDocument
    requests: list[Request] = Field([], max_length=100)

    @property
    def held(self) -> EditorDocument:
        """The document as the rest of the page takes it."""
        return cast(EditorDocument, self.document.model_dump())


@dataclass
class Checked:
    """A check as the browser shows it, and the graph it came from."""

    tab: str
    rev: int
    yaml: str
    graph: Graph
    problems: list[Problem] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """For the browser: what every node and adapter gives and takes, the problems, and the text."""
        return {
            "tab": self.tab,
            "rev": self.rev,
            "yaml": self.yaml,
            "nodes": {name: _node(self.graph, name) for name in (*self.graph.parts, *self.graph.adapters)},
            "problems": problems_data(self.problems),
        }


def problems_data(problems: list[Problem]) -> list[dict[str, Any]]:
    """Problems as the browser shows them."""
    return [
        {
            "message": problem.message,
            "line": problem.place.line,
            "column": problem.place.column,
            "node": problem.node,
            "port": problem.port,
            "fix": {"title": problem.fix.title, "operations": list(problem.fix.operations)} if problem.fix else None,
        }
        for problem in problems
    ]


def _node(graph: Graph, node: str) -> dict[str, Any]:
    part, value = graph.receiver(node), graph.values.get(node)
    ports = part.ports()
    return {
        "kind": value.kind if value else None,
        "shape": list(value.shape) if value else [],
        "ragged": value.ragged if value else False,
        "dtype": getattr(part, "dtype", "fp32") if value and value.kind != "text" else None,
        "ports": {port: list(kinds) for port, kinds in ports.items()},
        "optional": [port for port in ports if port in part.optional],
        "wants": {port: _wanted(graph, node, port) for port in ports},
    }


def _wanted(graph: Graph, node: str, port: str) -> Any:
    try:
        return graph.receiver(node).wants(port, graph.base)
    except AssemblerError:
        return None  # check says it at the node
