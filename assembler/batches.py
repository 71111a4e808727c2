"""Data rows to the tensors a compiled model takes, and the split into rows to learn from and rows held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assembler.bundle.manifest import Processor
from assembler.bundle.processor import tensors
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.rows import Placed, Plain, Row, Rows, Subset, as_rows


def numbered(columns: Mapping[str, str], rows: Sequence[Row]) -> dict[str, Tensor]:
    """For each wire of an adapter the whole numbers in a column: [B]."""
    return {wire: torch.tensor([int(row[column]) for row in rows]) for wire, column in columns.items()}


class Batches:
    """Collation: a list of data rows -> the keyword tensors of `Assembly.forward`.

    An input node gives one tensor under its own name, made as its consumer's processor says, and a mask [B, T] under
    `node_mask` where samples differ in length; a part with `extras` gives each under `node_extra`.
    """

    def __init__(self, graph: Graph) -> None:
        self.base = graph.base
        self.masked = {node: node in graph.masked for node in graph.samples}
        self.inputs = {node: (graph.column(node), graph.processor(node)) for node in graph.samples}
        self.collators: dict[str, Callable[[list[Row]], dict[str, Tensor]]] = {}
        for node in graph.order:
            part = graph.parts[node]
            if part.extras:
                self.collators[node] = part.collator(node, graph)
        for name, adapter in graph.adapters.items():
            if columns := getattr(adapter, "rows", {}):
                self.collators[name] = partial(numbered, columns)

    def __call__(self, rows: list[Row]) -> dict[str, Tensor]:
        return {**self.samples(rows), **self.extras(rows)}

    def extras(self, rows: Sequence[Row], names: Collection[str] | None = None) -> dict[str, Tensor]:
        """The tensors that parts make of the rows themselves, such as a prompt's ids: all parts, or those named."""
        collators = {n: collate for n, collate in self.collators.items() if names is None or n in names}
        made = {node: collate(list(rows)) for node, collate in collators.items()}
        return {f"{node}_{key}": tensor for node, found in made.items() for key, tensor in found.items()}

    def samples(self, rows: Sequence[Row], nodes: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The tensors of the input nodes alone, or of some of them, with their masks."""
        found: dict[str, Tensor] = {}
        for node in self.inputs if nodes is None else nodes:
            column, processor = self.inputs[node]
            made = [self._made(node, row, column, processor) for row in rows]
            for key in made[0]:
                found[f"{node}_{key}" if key else node] = torch.from_numpy(np.stack([one[key] for one in made]))
        return found

    def _made(self, node: str, row: Row, column: str, processor: Processor) -> dict[str, np.ndarray]:
        try:
            return tensors(row[column], processor, self.masked[node], self.base)
        except AssemblerError as error:
            place = f"{row.place}: " if isinstance(row, Placed) else ""
            raise AssemblerError(f"{place}{column}: {error}") from error


def left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """ids [B, T] and mask [B, T] of rows of different lengths, each at the right end."""
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def split(graph: Graph) -> tuple[Rows, Rows]:
    """(rows to learn from, rows held out). Each row's side is settled by a hash of its key and the seed.

    Rows that are known by what they hold stay on their side whatever rows come and go around them; of rows that are
    known by their number alone exactly the share `held_out` is held out. `fold` says which of these shares it is, so
    that each row is in one of them. With `on_bad: skip` the rows that cannot be read are left out of both, and are in
    `graph.bad`.

    Raises:
        AssemblerError: there is nothing to learn from, or a row is not written as it must be.
    """
    data = graph.document.data
    if data is None or graph.dataset is None:
        raise AssemblerError(f"{graph.spec.path}: there is no `data` to learn from; add it")
    rows = as_rows(graph.dataset.rows(graph.base))
    if data.on_bad == "fail":
        rows.require()
    elif graph.bad is None:
        graph.bad = bad_rows(graph, rows)
    place = [hashlib.sha256(f"{data.seed}:{rows.key(i)}".encode()).digest() for i in range(len(rows))]
    if isinstance(rows, Plain):
        first, end = (round(len(rows) * data.held_out * fold) for fold in (data.fold, data.fold + 1))
        held = set(sorted(range(len(rows)), key=lambda i: place[i])[first:end])
    else:
        bounds = range(int(data.held_out * data.fold * 2**64), int(data.held_out * (data.fold + 1) * 2**64))
        held = {i for i, key in enumerate(place) if int.from_bytes(key[:8]) in bounds and not rows.only_learned(i)}
        held |= {i for i in range(len(rows)) if rows.only_held_out(i)}
    good = [i for i in range(len(rows)) if i not in (graph.bad or ())]
    learned = [i for i in good if i not in held]
    if not learned:
        raise AssemblerError(f"{graph.spec.path}: data: {data.type} has {len(good)} rows, none of them to learn from")
    return Subset(rows, learned), Subset(rows, [i for i in good if i in held])


def tempered(graph: Graph, rows: Rows) -> Rows:
    """The rows of one epoch, those of small groups more than once where the spec's `sample` says so.

    Source: the multi-task sampling of HyperFormer (arXiv 2106.04489) and T5 (arXiv 1910.10683).
    """
    sample = graph.document.data.sample if graph.document.data else None
    if sample is None:
        return rows
    groups: dict[Any, list[int]] = {}
    for index in range(len(rows)):
        groups.setdefault(rows.plain(index)[sample.by], []).append(index)
    shares = {group: len(own) ** (1 / sample.temperature) for group, own in groups.items()}
    longest = max(len(own) / shares[group] for group, own in groups.items())
    chosen = [own[i % len(own)] for group, own in groups.items() for i in range(round(shares[group] * longest))]
    return Subset(rows, chosen)


def bad_rows(graph: Graph, rows: Rows) -> dict[int, str]:
    """Index of each row that cannot be made into a batch -> the sentence that says why; every file is opened."""
    batches, found = Batches(graph), {}
    for index in range(len(rows)):
        try:
            batches([rows[index]])
        except AssemblerError as error:
            found[index] = str(error)
    return found
