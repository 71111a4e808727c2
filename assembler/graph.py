"""A spec as parts and wires: what check fills in, and everything after it reads."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from assembler.bundle.manifest import Processor
from assembler.errors import AssemblerError
from assembler.part import AdapterPart, DatasetPart, Part
from assembler.problems import Problem
from assembler.spec import Document, Edge, Spec
from assembler.values import Dim, Value


@dataclass
class Graph:
    """A spec as parts and wires, in the order in which they run, with all that is known and all that is wrong."""

    spec: Spec
    parts: dict[str, Part] = field(default_factory=dict)
    adapters: dict[str, AdapterPart] = field(default_factory=dict)
    dataset: DatasetPart | None = None
    edges: list[Edge] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    values: dict[str, Value | None] = field(default_factory=dict)
    wants: dict[str, Dim] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    bad: dict[int, str] | None = None
    """With `on_bad: skip`, once they are looked for: the data rows that cannot be read, and why."""

    dangling: set[str] = field(default_factory=set)
    """Nodes at one end of a wire whose other end is broken: what they lack is not their own problem."""

    @property
    def base(self) -> Path:
        """The folder that relative sources start from."""
        return self.spec.base

    @property
    def document(self) -> Document:
        """The typed spec; only asked for where there is one."""
        assert self.spec.document is not None
        return self.spec.document

    @cached_property
    def incoming(self) -> dict[str, list[Edge]]:
        """The wires into each node, in the order of its ports."""
        found: dict[str, list[Edge]] = defaultdict(list)
        for edge in self.edges:
            found[edge.target].append(edge)
        for node, edges in found.items():
            ports = list(self.receiver(node).ports())
            edges.sort(key=lambda edge: ports.index(edge.port))
        return found

    def receiver(self, name: str) -> Part:
        """The node or adapter that a wire ends at."""
        return self.parts[name] if name in self.parts else self.adapters[name]

    def hosted(self, node: str) -> list[str]:
        """The adapters that are put into a node, in the order of the spec."""
        return [name for name, part in self.adapters.items() if part.host == node]

    def reaching(self, node: str) -> list[Edge]:
        """The wires into a node and into the adapters on it."""
        return [edge for name in (node, *self.hosted(node)) for edge in self.incoming[name]]

    @cached_property
    def outgoing(self) -> dict[str, list[Edge]]:
        """The wires out of each node, in the order of the spec."""
        found: dict[str, list[Edge]] = defaultdict(list)
        for edge in self.edges:
            found[edge.source].append(edge)
        return found

    @property
    def objectives(self) -> list[str]:
        """The nodes that give a loss."""
        return [node for node in self.order if self.parts[node].objective]

    @property
    def samples(self) -> list[str]:
        """The input nodes whose tensors are made of raw samples; text for an LM's prompt stays text until it is
        filled in."""
        values = self.values.items()
        return [
            node
            for node, value in values
            if value and self.is_input(node) and (value.kind != "text" or any(map(self.carries, self.outgoing[node])))
        ]

    def carries(self, edge: Edge) -> bool:
        """Whether a wire carries a tensor; the words for a slot of a prompt are no tensor."""
        wire = self.values.get(edge.source)
        return wire is None or wire.kind != "text" or self.receiver(edge.target).reads_text

    def ragged(self, node: str) -> bool:
        """Whether a value that is wired to the node comes with a mask."""
        wires = [self.values.get(edge.source) for edge in self.incoming[node]]
        return any(wire is not None and wire.ragged for wire in wires)

    @property
    def masked(self) -> frozenset[str]:
        """The nodes whose values come with a mask."""
        ragged = {node for node, value in self.values.items() if value and value.ragged}
        return frozenset(ragged | {node for node in self.samples if self.values[node].kind == "text"})  # type: ignore[union-attr]

    def ancestors(self, node: str) -> list[str]:
        """The nodes that a node's value is made of, itself among them, in the order in which they run."""
        wanted = {node}
        for name in reversed(self.order):
            if name in wanted:
                wanted.update(edge.source for edge in self.reaching(name) if self.carries(edge))
        return [name for name in self.order if name in wanted]

    def is_input(self, node: str) -> bool:
        """Whether a node brings data in and so holds no module."""
        return not self.parts[node].ports() and not self.parts[node].objective

    def processor(self, node: str) -> Processor:
        """How the samples of an input node become its tensor, which all its consumers must agree on.

        Raises:
            AssemblerError: nothing consumes it, or its consumers want different tensors.
        """
        wires = [edge for edge in self.outgoing[node] if self.carries(edge)]
        wanted = {edge.target: self.receiver(edge.target).processor(self.parts[node], self.base) for edge in wires}
        if not wanted:
            raise AssemblerError(f"nodes.{node}: nothing is wired to it; add an edge or remove the node")
        first = next(iter(wanted))
        other = next((target for target in wanted if wanted[target] != wanted[first]), None)
        if other is not None:
            raise AssemblerError(f"nodes.{node}: {first} and {other} scale it differently; give each its own input")
        return wanted[first]

    def column(self, name: str) -> str:
        """The data column behind an input node or slot."""
        data = self.document.data
        return data.columns.get(name, name) if data else name

    def slot_tokens(self, node: str) -> dict[str, int]:
        """The one token account: how many tokens each wired slot of `node` takes, in the order of its features."""
        found = {}
        for edge in self.incoming[node]:
            wire = self.values[edge.source]
            if wire is not None and wire.kind == "tokens":
                tokens = wire["tokens"]
                assert isinstance(tokens, int)
                found[edge.port] = tokens
        return found

    def text_columns(self, node: str) -> dict[str, str]:
        """Data column of each slot of `node` that takes text: by its own name, or by the text input wired to it."""
        wired = {edge.port: edge.source for edge in self.incoming[node]}
        tokens = self.slot_tokens(node)
        slots = [slot for slot in self.parts[node].columns(node, tokens) if slot != "answer"]
        return {slot: self.column(wired.get(slot, slot)) for slot in slots}

    def vocabulary(self, node: str) -> int:
        """Vocabulary size of the LM at `node`."""
        value = self.values[node]
        assert value is not None
        size = value["classes"]
        if not isinstance(size, int):
            raise AssemblerError(f"{self.spec.path}: node {node}: `config` must name vocab_size")
        return size

    def columns(self) -> dict[str, str]:
        """Every data column that is read, and its kind."""
        found = {}
        for node, part in self.parts.items():
            wired = {edge.port for edge in self.edges if edge.target == node}
            found.update({self.column(name): kind for name, kind in part.columns(node, wired).items()})
        return found

    def require(self) -> Graph:
        """This graph, if nothing is wrong with it.

        Raises:
            AssemblerError: every problem, one a line.
        """
        if self.problems:
            raise AssemblerError("\n".join(problem.render(str(self.spec.path)) for problem in self.problems))
        return self
