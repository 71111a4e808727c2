"""The composition grammar over named adapters: `stack(a, parallel(b, c))`, read without running anything.

stack(a, b)                    one after the other at each site, in this order
parallel(a, b)                 both read the same value; their changes are added
average(a, b, weights=[1, 3])  the weighted mean of their changes
split(a, b, at=[64])           a has tokens 0 to 63, b the rest
batch_split(a, b, at=[2])      a has rows 0 and 1 of the batch, b the rest
fuse(a, b, by=mix)             the adapter `mix`, a fusion, combines what both give
route(a, b, by=gate)           the adapter `gate`, a router, weighs them for each token
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from assembler.errors import AssemblerError
from assembler.suggest import nearest

OPTIONS: dict[str, dict[str, bool]] = {
    "stack": {},
    "parallel": {},
    "average": {"weights": False},
    "split": {"at": True},
    "batch_split": {"at": True},
    "fuse": {"by": True},
    "route": {"by": True},
}
"""Operation -> its options, and whether each has to be given."""


@dataclass(frozen=True)
class Leaf:
    """One adapter by name."""

    name: str

    def names(self) -> Iterator[str]:
        yield self.name

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Block:
    """An operation over blocks and adapters."""

    op: str
    children: tuple[Block | Leaf, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def names(self) -> Iterator[str]:
        """The adapters in it, in order, with the one that combines them after those it combines."""
        for child in self.children:
            yield from child.names()
        if "by" in self.options:
            yield self.options["by"]

    def __str__(self) -> str:
        knobs = [f"{key}={item}" for key, item in self.options.items()]
        return f"{self.op}({', '.join([*map(str, self.children), *knobs])})"


Node = Block | Leaf


def stack(names: Iterator[str] | list[str]) -> Block:
    """The adapters one after the other: what a host does whose spec says nothing."""
    return Block("stack", tuple(Leaf(name) for name in names))


def parse(text: str) -> Node:
    """The blocks that a text such as `stack(a, parallel(b, c))` describes.

    Raises:
        AssemblerError: the text is not of the grammar, an option is missing, or an adapter is named twice.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise AssemblerError(f"{text[:80]!r} is no composition; write it like stack(a, parallel(b, c))") from error
    block = _node(tree, text)
    seen: set[str] = set()
    for name in block.names():
        if name in seen:
            raise AssemblerError(f"{text}: {name} is named twice; an adapter has one place in a composition")
        seen.add(name)
    return block


def _node(tree: ast.expr, text: str) -> Node:
    if isinstance(tree, ast.Name):
        return Leaf(tree.id)
    if not (isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)):
        raise AssemblerError(f"{text[:80]!r} is no composition; write it like stack(a, parallel(b, c))")
    op = tree.func.id
    if op not in OPTIONS:
        raise AssemblerError(f"{text}: there is no block {op}{nearest(op, OPTIONS)}")
    children = tuple(_node(child, text) for child in tree.args)
    options = {str(word.arg): _option(op, word, text) for word in tree.keywords}
    missing = [name for name, needed in OPTIONS[op].items() if needed and name not in options]
    if missing:
        raise AssemblerError(f"{text}: {op} needs `{missing[0]}=`")
    _check_sizes(op, len(children), options, text)
    return Block(op, children, options)


def _option(op: str, word: ast.keyword, text: str) -> Any:
    if word.arg not in OPTIONS[op]:
        known = nearest(str(word.arg), OPTIONS[op]) or "; it takes none"
        raise AssemblerError(f"{text}: {op} has no option {word.arg}{known}")
    if word.arg == "by":
        if isinstance(word.value, ast.Name):
            return word.value.id
        raise AssemblerError(f"{text}: `by` names an adapter, such as by=mix")
    try:
        items = [float(x) if word.arg == "weights" else int(x) for x in ast.literal_eval(word.value)]
    except (ValueError, TypeError) as error:
        raise AssemblerError(f"{text}: `{word.arg}` is a list of numbers, such as [1, 3]") from error
    return items


def _check_sizes(op: str, count: int, options: dict[str, Any], text: str) -> None:
    if count == 0:
        raise AssemblerError(f"{text}: {op}() holds nothing; name the adapters in it")
    if "weights" in options and (len(options["weights"]) != count or sum(options["weights"]) == 0):
        raise AssemblerError(f"{text}: average of {count} takes {count} weights, whose sum is not 0")
    at = options.get("at")
    if at is not None and (len(at) != count - 1 or sorted({0, *at}) != [0, *at]):
        raise AssemblerError(f"{text}: {op} of {count} takes {count - 1} rising positions in `at`")


def check(block: Node, traits: Mapping[str, str], host: str, text: str) -> None:
    """See that the adapters exist and that the blocks nest, given each adapter's trait.

    A trait is `delta` (changes the value at a point: any block), `whole` (wraps a call, attention or the input: only
    in a stack) or `mixer` (a fusion or router: only as `by=`).

    Raises:
        AssemblerError: a name is unknown, or a block cannot hold what it is given; the sentence says why.
    """
    for name in block.names():
        if name not in traits:
            raise AssemblerError(f"compose.{host}: {text}: {host} has no adapter {name}{nearest(name, traits)}")
    _check_node(block, traits, f"compose.{host}: {text}", inside=None)


def _check_node(block: Node, traits: Mapping[str, str], where: str, inside: str | None) -> None:
    if isinstance(block, Leaf):
        if traits[block.name] == "mixer":
            raise AssemblerError(f"{where}: {block.name} combines others; write it as by={block.name}")
        if traits[block.name] == "whole" and inside is not None:
            raise AssemblerError(
                f"{where}: {block.name} changes the call itself and not a value that can be added, so it cannot stand "
                f"in {inside}; put it in a stack around it"
            )
        return
    by = block.options.get("by")
    if by is not None and traits[by] != "mixer":
        raise AssemblerError(f"{where}: {by} combines nothing; `by` takes a fusion or a router")
    for child in block.children:
        if block.op in ("split", "batch_split") and isinstance(child, Block) and child.op == block.op:
            raise AssemblerError(f"{where}: {block.op} in {block.op} cuts one axis twice; write one with more `at`")
        if block.op in ("fuse", "route") and isinstance(child, Block) and child.op == "batch_split":
            raise AssemblerError(f"{where}: batch_split in {block.op} would combine rows that differ; swap them")
        _check_node(child, traits, where, inside if block.op == "stack" else block.op)
