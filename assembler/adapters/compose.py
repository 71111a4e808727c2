"""Blocks as what they compute at one point: a program takes the host's value there and gives the adapted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from assembler.adapters.blocks import Block, Leaf, Node
from assembler.adapters.tap import Cut, Insert

Found = Mapping[str, Sequence[Insert]]
"""The inserts of each adapter at one point."""


class Run:
    """The inserts of one adapter, in order."""

    def __init__(self, inserts: Sequence[Insert]) -> None:
        self.inserts = list(inserts)

    def __call__(self, value: Tensor, cut: Cut) -> Tensor:
        for insert in self.inserts:
            value = insert(value, cut)
        return value

    def change(self, value: Tensor, cut: Cut) -> Tensor:
        """What it adds to the value; exact where it is made of one addition."""
        if len(self.inserts) == 1 and self.inserts[0].kind == "add":
            insert = self.inserts[0]
            return insert.module(*insert.given(value, cut))
        return self(value, cut) - value


class Stack:
    """One after the other."""

    def __init__(self, children: Sequence[Computed]) -> None:
        self.children = list(children)

    def __call__(self, value: Tensor, cut: Cut) -> Tensor:
        for child in self.children:
            value = child(value, cut)
        return value

    def change(self, value: Tensor, cut: Cut) -> Tensor:
        return self(value, cut) - value


class Sum:
    """value + sum_i w_i change_i(value)."""

    def __init__(self, children: Sequence[Computed], weights: Sequence[float]) -> None:
        self.children, self.weights = list(children), list(weights)

    def __call__(self, value: Tensor, cut: Cut) -> Tensor:
        return value + self.change(value, cut)

    def change(self, value: Tensor, cut: Cut) -> Tensor:
        parts = [w * c.change(value, cut) for c, w in zip(self.children, self.weights, strict=True)]
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)


class Window:
    """The cut of an axis from `start` to `stop`, inside another cut."""

    def __init__(self, outer: Cut, axis: int, start: int, stop: int | None) -> None:
        self.outer, self.axis, self.start, self.stop = outer, axis, start, stop

    def __call__(self, value: Tensor) -> Tensor:
        return self.of(self.outer(value))

    def of(self, value: Tensor) -> Tensor:
        """The window of a value that is cut already."""
        return value[self.start : self.stop] if self.axis == 0 else value[:, self.start : self.stop]


class Split:
    """Each child on its own stretch of an axis: 0 is the batch's rows, 1 the tokens."""

    def __init__(self, children: Sequence[Computed | None], at: Sequence[int], axis: int) -> None:
        self.children, self.axis = list(children), axis
        self.bounds = list(zip([0, *at], [*at, None], strict=True))

    def __call__(self, value: Tensor, cut: Cut) -> Tensor:
        parts = []
        for child, (start, stop) in zip(self.children, self.bounds, strict=True):
            window = Window(cut, self.axis, start, stop)
            part = window.of(value)
            parts.append(part if child is None else child(part, window))
        return torch.cat(parts, self.axis)

    def change(self, value: Tensor, cut: Cut) -> Tensor:
        return self(value, cut) - value


class Mix:
    """value + mixer([change_1, ..., change_n], *reads): a fusion or a router over its children.

    A router over adapters whose modules know how to work together, such as LoRAs, computes them all at once: no loop
    over experts, whose number then hardly shows in the time. One that `picks` says by `chosen(*reads)` which few a
    token takes and their gates, each [B, T, k], and only these are computed.
    """

    def __init__(self, children: Sequence[Computed | None], mixer: Insert) -> None:
        self.children, self.mixer = list(children), mixer
        self.experts = alike(children) if hasattr(mixer.module, "gates") else []
        for expert in self.experts[1:]:
            expert.idle = True  # all read the same, so that the first reads for all

    def __call__(self, value: Tensor, cut: Cut) -> Tensor:
        return value + self.change(value, cut)

    def change(self, value: Tensor, cut: Cut) -> Tensor:
        reads = self.mixer.given(value, cut)
        if self.experts:
            modules: list[Any] = [expert.module for expert in self.experts]
            mixer: Any = self.mixer.module
            if getattr(mixer, "picks", False) and hasattr(modules[0], "picked"):
                return modules[0].picked(modules, *mixer.chosen(*reads), *self.experts[0].given(value, cut))
            gates = mixer.gates(*reads)
            return modules[0].together(modules, gates, *self.experts[0].given(value, cut))
        changes = [torch.zeros_like(value) if c is None else c.change(value, cut) for c in self.children]
        if not hasattr(self.mixer.module, "gates"):
            return self.mixer.module(changes, *reads)
        gates = self.mixer.module.gates(*reads)  # type: ignore[operator]  # [B, T, N]
        return (torch.stack(changes, -1) * gates.to(value.dtype).unsqueeze(-2)).sum(-1)


def alike(children: Sequence[Computed | None]) -> list[Insert]:
    """The single additions of the children, where all are of one kind that works `together`; otherwise none."""
    inserts = [child.inserts[0] for child in children if isinstance(child, Run) and len(child.inserts) == 1]
    kinds = {(type(insert.module), insert.kind, insert.reads) for insert in inserts}
    same = len(inserts) == len(children) and len(kinds) == 1 and inserts[0].kind == "add"
    return inserts if same and hasattr(inserts[0].module, "together") else []


Computed = Run | Stack | Sum | Split | Mix


def program(node: Node, found: Found) -> Computed | None:
    """What the blocks compute at a point, or None where none of their adapters has anything there."""
    if isinstance(node, Leaf):
        return Run(found[node.name]) if found.get(node.name) else None
    children = [program(child, found) for child in node.children]
    there = [child for child in children if child is not None]
    if not there:
        return None
    if node.op == "stack":
        return there[0] if len(there) == 1 else Stack(there)
    if node.op in ("split", "batch_split"):
        return Split(children, node.options["at"], axis=1 if node.op == "split" else 0)
    if node.op in ("fuse", "route"):
        return Mix(children, _mixer(node, found))
    weights = node.options.get("weights", [1.0] * len(children)) if node.op == "average" else [1.0] * len(children)
    total = sum(weights) if node.op == "average" else 1.0
    used = [(child, w / total) for child, w in zip(children, weights, strict=True) if child is not None]
    return Sum([child for child, _ in used], [w for _, w in used])


def _mixer(node: Block, found: Found) -> Insert:
    (insert,) = found[node.options["by"]]
    return insert
