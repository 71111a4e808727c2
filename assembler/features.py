"""The values of frozen nodes, computed once a sample and kept on disk across epochs, stages and runs.

A value is that of its sample alone, a batch of one, so that it never depends on what else is in a batch: a run that is
resumed reads the very bits that an unbroken one does. It is known by the digest of all it is made of: the weights, the
options and the code of the nodes before it, and the tensors that the sample's preprocessing gave. Where a value is
padded its padding is zero, and is not kept.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pickle
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assembler.batches import Batches
from assembler.compile import Assembly
from assembler.files import aside
from assembler.graph import Graph
from assembler.ragged import Ragged, paired, parted, spread
from assembler.rows import Row
from assembler.weights import cache_folder

GIB = 2**30
FORMAT = 2
"""Of the files of values; those of another are not asked for."""


def frontier(graph: Graph, assembly: Assembly) -> list[str]:
    """The last nodes on each way whose values are the same in every epoch of the stage that `assembly` is set for.

    Such a node holds no parameter that learns, is in evaluation mode to its last module, reads nothing but wires, gives
    no loss, and so do all before it.
    """
    still = {node for node in graph.order if graph.is_input(node)}
    for step in assembly.plan:
        module, part = assembly.nodes[step.node], graph.parts[step.node]
        learns = any(p.requires_grad for p in module.parameters()) or any(m.training for m in module.modules())
        losses = part.objective or any(_gives_loss(m) for m in module.modules())
        if not (learns or losses or step.extras) and still.issuperset(step.needs):
            still.add(step.node)
    needed = assembly.needed()
    ends = {source for step in assembly.plan if step.node in needed - still for source in step.needs}
    return [step.node for step in assembly.plan if step.node in ends & still]


def _gives_loss(module: nn.Module) -> bool:
    """Whether a module leaves a loss; one that waits to be asked does not until it is."""
    return hasattr(type(module), "auxiliary_loss") and getattr(module, "asked", True)


class Features:
    """Batches in which the frozen nodes' values are there already, under the nodes' names.

    Attributes:
        nodes: the nodes whose values are kept; what only they need leaves the batch.
        found: how many values were read.
        made: how many were computed.
    """

    def __init__(
        self, graph: Graph, assembly: Assembly, batches: Batches, nodes: list[str], store: Store, precision: str
    ) -> None:
        self.assembly, self.batches, self.store, self.nodes = assembly, batches, store, nodes
        self.half = precision == "bf16"
        self.inputs = {node: [x for x in graph.ancestors(node) if graph.is_input(x)] for node in nodes}
        self.known = {node: identity(graph, assembly, node, precision) for node in nodes}
        later = assembly.needed(nodes) - set(nodes)
        rest = {source for step in assembly.plan if step.node in later for source in step.needs}
        self.spent = {node for inputs in self.inputs.values() for node in inputs} - rest
        self.names: dict[str, str] = {}
        self.found = self.made = 0

    def __call__(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        batch = self.batches.extras(rows)
        if rest := [node for node in self.batches.inputs if node not in self.spent]:
            batch.update(self.batches.samples(rows, rest))
        for node in self.nodes:
            values = [parted(self.value(node, row)) for row in rows]
            batch[node] = torch.cat([plain for plain, _ in values])
            if values[0][1] is not None:
                batch[f"{node}_mask"] = torch.cat([mask for _, mask in values if mask is not None])
        return batch

    def value(self, node: str, row: Row) -> Tensor | Ragged:
        """The node's value for one row, read or else computed and kept.

        A sample that this run has seen is not prepared again: its raw content tells the name of its value.
        """
        raw, sample = self._raw(node, row), None
        name = self.names.get(raw)
        if name is None:
            sample = self.batches.samples([row], self.inputs[node])
            tensors = (part for key in sorted(sample) for part in _bytes(key, sample[key]))
            self.names[raw] = name = _digest(self.known[node].encode(), *tensors)
        kept = self.store.read(name)
        if kept is None:
            value = self.computed(node, sample or self.batches.samples([row], self.inputs[node]))
            self.store.write(name, value)
            self.made += 1
            return value
        self.found += 1
        return kept

    def _raw(self, node: str, row: Row) -> str:
        """The digest of the raw samples that the node's value is made of."""
        columns = sorted({self.batches.inputs[name][0] for name in self.inputs[node]})
        return _digest(node.encode(), pickle.dumps([row[column] for column in columns]))

    def computed(self, node: str, sample: dict[str, Tensor]) -> Tensor | Ragged:
        """The node's value for one sample, on the host, zero where it is padded."""
        device = next(self.assembly.parameters()).device
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.half)
        with torch.no_grad(), torch.random.fork_rng(), half:
            value = self.assembly.values({k: x.to(device) for k, x in sample.items()}, only=[node])[node]
        plain, mask = parted(value)
        return paired(plain.cpu(), None) if mask is None else _placed(plain[mask].cpu(), mask.cpu())

    def steady(self, rows: Sequence[Row]) -> bool:
        """Whether the values of a row come out the same twice, as they must to be kept."""
        for node in self.nodes:
            sample = self.batches.samples([rows[0]], self.inputs[node])
            one, two = (self.computed(node, sample) for _ in range(2))
            if any(not torch.equal(a, b) for a, b in zip(_tensors(one), _tensors(two), strict=True)):
                return False
        return True


class Store:
    """Values in files, one a sample, whole or not there, in at most `limit` bytes.

    When it is full, values that no run has asked for since this one began make room, the longest unasked first; where
    that is not enough the new value is not kept.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.began = time.time()
        self.size = sum(entry.stat().st_size for entry in self._files())

    def read(self, name: str) -> Tensor | Ragged | None:
        """The value; None where there is none, or the file is damaged, which is then removed."""
        from safetensors.torch import load

        path = self._path(name)
        try:
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            path.unlink(missing_ok=True)
            return None
        tensors = load(content[32:])
        return _placed(tensors["values"], tensors["mask"]) if "mask" in tensors else tensors["values"]

    def write(self, name: str, value: Tensor | Ragged) -> None:
        """Keep a value if there is room for it."""
        from safetensors.torch import save

        plain, mask = parted(value)
        content = save(
            {"values": plain.contiguous()} if mask is None else {"values": plain[mask], "mask": mask.contiguous()}
        )
        content = hashlib.sha256(content).digest() + content
        if self.size + len(content) > self.limit and not self._make_room(len(content)):
            return
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as draft:
            draft.write_bytes(content)
        self.size += len(content)

    def _make_room(self, wanted: int) -> bool:
        old = [(entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in self._files()]
        self.size = sum(size for _, size, _ in old)
        for asked, size, path in sorted(old):
            if self.size + wanted <= self.limit * 0.9 or asked >= self.began:
                break
            Path(path).unlink(missing_ok=True)
            self.size -= size
        return self.size + wanted <= self.limit

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / name

    def _files(self) -> Iterator[os.DirEntry[str]]:
        if self.folder.is_dir():
            for shard in os.scandir(self.folder):
                yield from (entry for entry in os.scandir(shard.path) if not entry.name.startswith("."))


def features_folder() -> Path:
    """Where values are kept for every run of this computer."""
    return cache_folder() / "features"


def kept(
    graph: Graph, assembly: Assembly, batches: Batches, rows: Sequence[Row], limit: int, precision: str
) -> Features | None:
    """The batches of a stage with its frozen nodes' values kept, where there is a frozen node whose work that spares.

    None where no node is frozen from the inputs on, where none of those holds a parameter, or where their values are
    not the same twice.
    """
    assembly.train()
    nodes = frontier(graph, assembly)
    before = {name for node in nodes for name in graph.ancestors(node) if name in assembly.nodes}
    if not any(True for name in before for _ in assembly.nodes[name].parameters()):
        return None
    found = Features(graph, assembly, batches, nodes, Store(features_folder(), limit), precision)
    return found if found.steady(rows) else None


def identity(graph: Graph, assembly: Assembly, node: str, precision: str) -> str:
    """The digest of what a node's value is made of beside the sample: weights, options and code up to it."""
    before = [name for name in graph.ancestors(node) if name in assembly.nodes]
    device = next(assembly.parameters()).device.type
    options = {name: graph.parts[name].model_dump(mode="json", exclude={"freeze"}) for name in before}
    hosted = {name: part for name, part in graph.adapters.items() if part.host in before}
    options.update({name: part.model_dump(mode="json") for name, part in hosted.items()})
    wires = [str(edge) for name in before for edge in graph.reaching(name)]
    told = json.dumps(options, sort_keys=True), json.dumps(wires)
    parts: list[Any] = [FORMAT, torch.__version__, device, precision, *told]
    found = [str(part).encode() for part in parts]
    for name in before:
        module = assembly.nodes[name]
        for key, tensor in [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]:
            found.extend(_bytes(key, tensor.detach().cpu()))
        found.extend(_code(module))
    return _digest(*found)


def _code(module: nn.Module) -> list[bytes]:
    """The source files of a module's classes."""
    files = {inspect.getsourcefile(sys.modules[type(m).__module__]) for m in module.modules()}
    return [Path(file).read_bytes() for file in sorted(x for x in files if x) if Path(file).is_file()]


def _bytes(key: str, tensor: Tensor) -> list[bytes]:
    plain = tensor.contiguous()
    return [f"{key} {plain.dtype} {list(plain.shape)}".encode(), plain.flatten().view(torch.uint8).numpy().tobytes()]


def _placed(real: Tensor, mask: Tensor) -> Ragged:
    return Ragged(spread(real, mask), mask)


def _tensors(value: Tensor | Ragged) -> list[Tensor]:
    return [x for x in parted(value) if x is not None]


def _digest(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8))
        found.update(part)
    return found.hexdigest()
