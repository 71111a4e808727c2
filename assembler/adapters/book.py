"""The adapters on one host: put in, activated, composed, merged and taken off, with the model running on.

They are kept in a module `adapters` of the host, so that `host.adapters.tune` holds all parameters of the adapter
`tune`; the host's own modules are left where they are (see `tap`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from assembler.adapters import blocks
from assembler.adapters.attention import Intercept
from assembler.adapters.compose import program
from assembler.adapters.host import Host
from assembler.adapters.pieces import Wire, on_device
from assembler.adapters.tap import Cell, Insert, Point, Tap, foldable, on_slice, weight_and_bias
from assembler.anatomy import anatomy_of, joined
from assembler.errors import AssemblerError
from assembler.registry import parts
from assembler.values import Value

if TYPE_CHECKING:
    from assembler.part import AdapterPart


class Adapter(nn.Module):
    """All modules of one adapter on one host; `aside` holds those that several of its inserts share."""

    def __init__(self, modules: Mapping[str, nn.Module], aside: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for key, module in aside.items():
            self.add_module(key, module)
        for key, module in modules.items():
            self.add_module(key, module)


@dataclass
class Entry:
    """An adapter as the book knows it."""

    part: AdapterPart
    inserts: dict[str, Insert]
    wires: dict[str, Wire]


class Adapters(nn.ModuleDict):
    """The adapters of one host by name, and the book that keeps them in order."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book


class Book:
    """The adapters of one host, by name; see the module's docstring."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.modules = Adapters(self)
        self.entries: dict[str, Entry] = {}
        self.tree: blocks.Node | None = None
        self.taps: list[Tap] = []

    @property
    def names(self) -> list[str]:
        """All adapters, in the order in which they came."""
        return list(self.entries)

    @property
    def active(self) -> str:
        """The composition that the host runs with; empty when it runs bare."""
        return "" if self.tree is None else str(self.tree)

    def part(self, name: str) -> AdapterPart:
        """The part that an adapter was made by."""
        return self._entry(name).part

    def inserts(self, name: str) -> dict[str, Insert]:
        """What an adapter has put in, by the names of its modules."""
        return self._entry(name).inserts

    def wires(self, name: str) -> dict[str, Wire]:
        """The wires of an adapter by port."""
        return self._entry(name).wires

    def add(self, name: str, part: AdapterPart, on: Host) -> None:
        """Keep what a part has put in, and let it act after those that are active."""
        self.modules[name] = Adapter({key: one.module for key, one in on.inserts.items()}, on.shared)
        self.entries[name] = Entry(part, on.inserts, on.wires)
        if part.trait != "mixer":
            tree = self.tree
            children = tree.children if isinstance(tree, blocks.Block) and tree.op == "stack" else (tree,)
            kept = tuple(child for child in children if child is not None)
            self._set(blocks.Block("stack", (*kept, blocks.Leaf(name))))

    def activate(self, composition: str) -> None:
        """Run the host with the adapters as `composition` says; with an empty one it runs bare.

        Raises:
            AssemblerError: a name is unknown or blocks do not nest; the host is as it was.
        """
        if not composition:
            self._set(None)
            return
        tree = blocks.parse(composition)
        traits = {name: entry.part.trait for name, entry in self.entries.items()}
        blocks.check(tree, traits, type(self.root).__name__, composition)
        self._set(tree)

    def mixed(self, name: str, composition: str) -> tuple[list[Insert], int]:
        """The first insert at every point that the options of a mixer change, and the number of options.

        Raises:
            AssemblerError: the composition has no `by=` this mixer, or an option is no adapter here.
        """
        block = block_by(blocks.parse(composition), name) if composition else None
        if block is None:
            raise AssemblerError(f"nothing is combined by {name}; write a composition such as fuse(a, b, by={name})")
        first: dict[Point, Insert] = {}
        for option in (leaf for child in block.children for leaf in child.names()):
            for insert in self._entry(option).inserts.values():
                if insert.kind in ("add", "set"):
                    first.setdefault(insert.point, insert)
        return list(first.values()), len(block.children)

    def remove(self, name: str) -> None:
        """Take an adapter off; once the last is off, the host is as it was before the first, bit for bit."""
        self._entry(name)
        self._set(without(self.tree, name))
        del self.entries[name]
        del self.modules[name]
        if not self.entries:
            del self.root.adapters

    def outermost(self, name: str) -> bool:
        """Whether an adapter is active and nothing combines it with others, so that it could be worked into weights."""
        tree = self.tree
        first = isinstance(tree, blocks.Leaf) or (isinstance(tree, blocks.Block) and tree.op == "stack")
        return tree is not None and first and blocks.Leaf(name) in top(tree)

    @torch.no_grad()
    def merge(self, name: str) -> None:
        """Work an adapter into the host's weights and take it off.

        Raises:
            AssemblerError: it, or where it stands in the composition, cannot be worked into weights; nothing is done.
        """
        changes = [self._folded(name, insert) for insert in self._entry(name).inserts.values()]
        tree = self.tree
        if tree is not None and name in tree.names() and not self.outermost(name):
            raise AssemblerError(f"adapter {name} stands inside {tree}; merge an adapter that is in the outer stack")
        for insert, module in changes:
            weight, bias = on_slice(insert.point, *weight_and_bias(module), insert.module.fold)  # type: ignore[arg-type]
            stored: Any = weight.T if type(module).__name__ == "Conv1D" else weight
            module.weight.copy_(stored)  # type: ignore[operator,union-attr]
            if bias is not None:
                if getattr(module, "bias", None) is None:
                    module.bias = nn.Parameter(bias.clone(), requires_grad=False)
                else:
                    module.bias.copy_(bias)  # type: ignore[operator,union-attr]
        self.remove(name)

    def _folded(self, name: str, insert: Insert) -> tuple[Insert, nn.Module]:
        module = self.root.get_submodule(insert.point.path)
        own = joined("", insert.point.path)
        if not hasattr(insert.module, "fold"):
            why = f"{type(insert.module).__name__} is no linear change of a weight"
        elif not foldable(module) and insert.kind != "around":
            why = f"{own} is a {type(module).__name__}"
        elif shared(self.root, module):
            why = f"the weight of {own} is tied to another module's"
        else:
            return insert, module
        raise AssemblerError(f"adapter {name} cannot be merged: {why}; leave it unmerged")

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            known = ", ".join(self.entries) or "none"
            raise AssemblerError(f"the host has no adapter {name!r}; it has {known}")
        return self.entries[name]

    def _set(self, tree: blocks.Node | None) -> None:
        """Run with another composition: the old taps go, and only what is active gets new ones."""
        taps = taps_of(self.root, tree, self.entries)
        for tap in reversed(self.taps):
            tap.remove()
        self.tree, self.taps = tree, taps
        for tap in taps:
            tap.install()


def taps_of(root: nn.Module, tree: blocks.Node | None, entries: Mapping[str, Entry]) -> list[Tap]:
    """The taps of a composition, not yet installed."""
    taps: dict[str, Tap] = {}
    points: dict[Point, dict[str, list[Insert]]] = {}
    attends: dict[str, list[nn.Module]] = {}

    def tap(path: str) -> Tap:
        if path not in taps:
            taps[path] = Tap(root.get_submodule(path))
        return taps[path]

    for name in tree.names() if tree is not None else ():
        for insert in entries[name].inserts.values():
            path = insert.point.path
            if insert.kind in ("add", "set"):
                points.setdefault(insert.point, {}).setdefault(name, []).append(insert)
                insert.cells = [None if read == insert.point else Cell() for read in insert.reads]
                insert.idle = False
            elif insert.kind == "around":
                tap(path).arounds.append(insert.module)
            elif insert.kind == "weight":
                tap(path).weights.append((insert.point, insert.module))
            else:
                attends.setdefault(path, []).append(insert.module)
    for point, found in points.items():
        computed = program(tree, found)  # type: ignore[arg-type]
        if computed is not None:
            tap(point.path).programs[point.side].append((point, computed))
        for insert in (one for inserts in found.values() for one in inserts if not one.idle):
            for cell, read in zip(insert.cells, insert.reads, strict=True):
                if cell is not None:
                    tap(read.path).cells[read.side].append((cell, read))
    for path, modules in attends.items():
        tap(path).intercept = Intercept(root.get_submodule(path), modules)
    return list(taps.values())


def shared(root: nn.Module, module: nn.Module) -> bool:
    """Whether another module holds the same weight."""
    weight = getattr(module, "weight", None)
    return any(m is not module and getattr(m, "weight", None) is weight for m in root.modules()) and weight is not None


def block_by(tree: blocks.Node, name: str) -> blocks.Block | None:
    """The block that the mixer `name` combines."""
    if isinstance(tree, blocks.Leaf):
        return None
    if tree.options.get("by") == name:
        return tree
    return next((found for child in tree.children if (found := block_by(child, name)) is not None), None)


def top(tree: blocks.Node) -> tuple[blocks.Node, ...]:
    """The blocks of the outermost stack."""
    return tree.children if isinstance(tree, blocks.Block) and tree.op == "stack" else (tree,)


def without(tree: blocks.Node | None, name: str) -> blocks.Node | None:
    """The composition without an adapter: None when nothing is left.

    Raises:
        AssemblerError: what holds the adapter would change its meaning without it.
    """
    if tree is None or name not in tree.names():
        return tree
    if isinstance(tree, blocks.Leaf):
        return None
    if tree.op != "stack":
        raise AssemblerError(f"adapter {name} stands in {tree}; activate another composition first")
    children = tuple(kept for child in tree.children if (kept := without(child, name)) is not None)
    return blocks.Block("stack", children) if children else None


def adapters_of(host: nn.Module) -> Book | None:
    """The book of the adapters on a host or on what it wraps, or None where it has none."""
    return next((module._book for module in host.modules() if isinstance(module, Adapters)), None)


def attach(
    part: AdapterPart,
    host: nn.Module,
    name: str,
    seed: int,
    wires: Mapping[str, Value] | None = None,
    composition: str = "",
) -> list[str]:
    """Put an adapter on a host in place: what `part.inject` says, drawn under `seed`, in the host's mode.

    `wires` are the values on the wires into it, by port; `composition` says what a mixer combines.

    Returns:
        the names, within `host`, of the new parameters; they require gradients and all others keep their flags.

    Raises:
        AssemblerError: the name is taken or the part does not fit the host, which then is as it was.
    """
    book, prefix = book_of(host)
    root = book.root
    if name in book.names:
        raise AssemblerError(f"the host already has an adapter {name!r}; pick another name")
    mixed, options = book.mixed(name, composition) if part.trait == "mixer" else ([], 0)
    on = Host(root, name, part, wires or {}, mixed, options)
    with seeded(seed), on_device(on.parameter):
        part.inject(on)
    if not on.inserts:
        raise AssemblerError(f"{part.type} finds nothing to adapt in {type(root).__name__}")
    for module in [*on.shared.values(), *(insert.module for insert in on.inserts.values())]:
        module.to(on.parameter.dtype).train(root.training).requires_grad_(True)
        if not on.parameter.is_meta:
            module.to(on.parameter.device)
    if "adapters" not in root._modules:
        root.add_module("adapters", book.modules)
    book.add(name, part, on)
    return [joined(prefix, f"adapters.{name}.{key}") for key, _ in book.modules[name].named_parameters()]


def book_of(host: nn.Module) -> tuple[Book, str]:
    """The adapters of a host, new where it has none yet, and the path of the module that holds them."""
    parts()  # the anatomies come with the components
    _, prefix = anatomy_of(host)
    root = host.get_submodule(prefix)
    there = root._modules.get("adapters")
    return (there._book if isinstance(there, Adapters) else Book(root)), prefix


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed within the block and leave the generators as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield
