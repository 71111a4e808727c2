"""Compile: a checked graph becomes one ordinary torch module whose forward is a flat list of calls."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from assembler.adapters.book import Adapters, adapters_of
from assembler.adapters.files import fill, read_adapter
from assembler.adapters.host import Wire
from assembler.anatomy import describe, described
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.guess import guessed
from assembler.ragged import Ragged, on_real, paired, parted
from assembler.weights import fetch, parse_source


@dataclass(frozen=True)
class Step:
    """One call of the plan: the node, its batch tensors, and the nodes whose values follow them.

    `targets` are those batch tensors that may be absent; `keeps_mask` is set where the mask of a ragged wire goes past
    the module, and `alone` where nothing of it sees more than one position, so that padding need not enter it; `feeds`
    are the wires into the adapters on the node: adapter, port, and the node or batch tensor of each; `weight` is that
    of its loss, where it gives one.
    """

    node: str
    extras: tuple[str, ...]
    sources: tuple[str, ...]
    targets: frozenset[str] = frozenset()
    keeps_mask: bool = False
    alone: bool = False
    feeds: tuple[tuple[str, str, str], ...] = ()
    weight: float = 1.0

    @property
    def needs(self) -> set[str]:
        """The nodes whose values the call takes, by its own wires or its adapters'."""
        return {*self.sources, *(source for _, _, source in self.feeds)}


class Assembly(nn.Module):
    """The model of a spec. `forward(**batch)` takes the tensors of `Batches` and gives `loss` and `logits`, or the last
    node's value as `output` where no node gives a loss.

    Attributes:
        nodes: the module of every node that has one, by name.
        plan: the calls, in order.
        ragged: nodes whose values come with a mask, in the batch as `NAME_mask`.
        adapters: adapter name -> names of its parameters in this module.
        hosts: adapter name -> the node that it is put into.
        counted: the nodes and adapters whose losses count; all where it is None.
        consistency: weight of the divergence of two runs of a batch in training; with 0 there is one run.
    """

    def __init__(self, modules: dict[str, nn.Module], plan: list[Step], ragged: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.nodes = nn.ModuleDict(modules)
        self.plan = plan
        self.ragged = ragged
        self.adapters: dict[str, list[str]] = {}
        self.trained: frozenset[str] = frozenset()
        self.counted: tuple[str, ...] | None = None
        self.consistency = 0.0
        self.hosts: dict[str, str] = {}
        self._auxiliaries: list[tuple[set[str], Any]] = []
        self.refresh()

    def refresh(self) -> None:
        """Look again for modules that leave an `auxiliary_loss` and for wires; after an adapter came or went."""
        books = [book for host in self.nodes.values() if (book := adapters_of(host)) is not None]
        self.wires: dict[tuple[str, str], Wire] = {
            (name, port): wire for book in books for name in book.names for port, wire in book.wires(name).items()
        }
        mine = {
            module: name for book in books for name in book.names for module in book.modules[name].modules()
        }  # an adapter's own loss may count without its host's
        named = [(node, module) for node, host in self.nodes.items() for module in host.modules()]
        self._auxiliaries = [
            ({node, mine.get(module, node)}, module)
            for node, module in named
            if hasattr(type(module), "auxiliary_loss")
        ]

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        for _, module in self._auxiliaries:
            module.auxiliary_loss = None
        values = self.values(batch)
        losses = self.losses(values)
        if self.consistency and self.training:
            losses.append(self.consistency * self._apart(values, self.values(batch)))
        if not losses:
            return {"output": values[self.plan[-1].node]}
        found = {"loss": losses[0] if len(losses) == 1 else torch.stack(losses).sum()}
        outputs = [values[step.node] for step in self.plan if isinstance(values.get(step.node), dict)]
        logits = next((output["logits"] for output in outputs if "logits" in output), None)
        return found if logits is None else {**found, "logits": logits}

    def _apart(self, one: dict[str, Any], two: dict[str, Any]) -> Tensor:
        """The symmetric KL divergence of two runs' logits [B, C], a sum over the heads that count."""
        counted = [step.node for step in self.plan if self.counted is None or step.node in self.counted]
        pairs = [(one[n]["logits"], two[n]["logits"]) for n in counted if isinstance(one.get(n), dict)]
        if not pairs or any(first.dim() != 2 for first, _ in pairs):
            raise AssemblerError(
                "`consistency` compares the classes that heads predict, and here are none; leave it out"
            )
        logs = [(first.float().log_softmax(-1), second.float().log_softmax(-1)) for first, second in pairs]
        return torch.stack([((p.exp() - q.exp()) * (p - q)).sum(-1).mean() for p, q in logs]).sum()

    def losses(self, values: dict[str, Any]) -> list[Tensor]:
        """The losses that count among `values`, times their weights, and the auxiliary ones that their modules left."""
        counted = self.counted
        given = [step for step in self.plan if isinstance(values.get(step.node), dict)]
        own = [step.weight * values[step.node]["loss"] for step in given if counted is None or step.node in counted]
        found = [module.auxiliary_loss for by, module in self._auxiliaries if counted is None or by & set(counted)]
        return own + [loss for loss in found if loss is not None]

    def values(self, batch: dict[str, Tensor], only: Collection[str] | None = None) -> dict[str, Any]:
        """The batch's tensors and the nodes' values, by name.

        A node whose value is in the batch already is not computed, nor is what only it needs. With `only`, these nodes
        are computed; otherwise what the losses that count need.
        """
        values: dict[str, Any] = {
            key: Ragged(x, batch[f"{key}_mask"]) if key in self.ragged else x for key, x in batch.items()
        }
        needed = self.needed(batch, only)
        for step in self.plan:
            if step.node not in needed:
                continue
            extras = [batch.get(key) if key in step.targets else batch[key] for key in step.extras]
            module, wires = self.nodes[step.node], [values[source] for source in step.sources]
            self._feed(step, values)
            if step.alone:
                values[step.node] = on_real(partial(module, *extras), wires[0])
            elif step.keeps_mask:
                plain, mask = parted(wires[0])
                values[step.node] = paired(module(*extras, plain), mask)
            else:
                values[step.node] = module(*extras, *wires)
            self._feed(step, {})
        return values

    def _feed(self, step: Step, values: dict[str, Any]) -> None:
        """Lay what the adapters on a node read on their wires; nothing when the values are gone."""
        for adapter, port, source in step.feeds:
            self.wires[adapter, port].value = values.get(source)

    def needed(self, given: Collection[str] = (), only: Collection[str] | None = None) -> set[str]:
        """The nodes to compute where the values of `given` are there: for `only` these, or the losses that count."""
        asked = only if only is not None else self.counted or [step.node for step in self.plan]
        wanted = {self.hosts.get(name, name) for name in asked}
        for step in reversed(self.plan):
            if step.node in wanted and step.node not in given:
                wanted.update(step.needs)
        return wanted - set(given)

    def only(self, objectives: Sequence[str] | None) -> None:
        """Count the losses of these nodes and adapters alone, and compute only what they need; None counts all."""
        self.counted = None if objectives is None else tuple(objectives)
        for node, module in self.nodes.items():
            if hasattr(type(module), "asked"):
                module.asked = node in (self.counted or ())  # type: ignore[assignment]

    def features(self, target: str, batch: dict[str, Tensor]) -> list[Any]:
        """The values on the wires into `target`, in the order of its ports; nothing after them is computed.

        What the adapters on it read stays on their wires, for a call of its module.
        """
        step = next(step for step in self.plan if step.node == target)
        values = self.values(batch, only=step.needs)
        self._feed(step, values)
        return [values[source] for source in step.sources]

    def output(self, target: str, batch: dict[str, Tensor]) -> Any:
        """The value of a node; nothing that it does not need is computed."""
        counted = self.counted
        self.only([target])
        try:
            return self.values(batch)[target]
        finally:
            self.only(counted)

    def of(self, name: str) -> list[str]:
        """Names of the parameters of a node, without its adapters', or of an adapter."""
        if name in self.adapters:
            return self.adapters[name]
        foreign = {key for keys in self.adapters.values() for key in keys}
        prefix = f"nodes.{name}."
        return [key for key, _ in self.named_parameters() if key.startswith(prefix) and key not in foreign]

    def train_only(self, names: list[str]) -> None:
        """Let exactly the parameters of these nodes and adapters learn; every other node goes to evaluation mode.

        Those that a module has for a loss that it is not `asked` for rest, as `only` has set it before.
        """
        chosen = {key for name in names for key in self.of(name)}
        for node, module in self.nodes.items():
            if not getattr(module, "asked", True):
                own: Any = module
                chosen -= {f"nodes.{node}.{key}" for key in own.for_loss()}
        for key, parameter in self.named_parameters():
            parameter.requires_grad_(key in chosen)
        self.trained = frozenset(name for name in names if name not in self.adapters)
        self.train(self.training)

    def train(self, mode: bool = True) -> Assembly:
        """Training mode for what learns; a node that does not stays as it serves, without dropout and batch statistics.

        The modules of an adapter follow the mode, since they alone hold its dropout.
        """
        super().train(mode)
        if mode:
            for node, module in self.nodes.items():
                if node not in self.trained:
                    module.eval()
            for module in self.modules():
                if isinstance(module, Adapters):
                    module.train(mode)
        return self


def compile_graph(graph: Graph, device: Literal["meta", "cpu"] = "cpu", load: bool = True) -> Assembly:
    """The model of a graph with its adapters attached, on `device`; with `load` the named weights are in it.

    Fresh weights are drawn under the spec's seed, a node after the other, so that a spec gives one model.

    Raises:
        AssemblerError: the graph has problems, or weights are missing or do not fit.
    """
    graph.require()
    modules, plan = {}, []
    for index, node in enumerate(graph.order):
        part, inputs = graph.parts[node], {}
        if graph.is_input(node):
            continue
        for edge in graph.incoming[node]:
            wire = graph.values[edge.source]
            assert wire is not None
            inputs[edge.port] = wire
        output = graph.values[node]
        assert output is not None
        _check_known(graph, node)
        loads = bool(part.weight_sources()) and device != "meta" and load
        with torch.random.fork_rng(devices=[]), _place(device, loads):
            torch.random.default_generator.manual_seed(graph.document.seed * 1_000_003 + index)
            modules[node] = part.build(inputs, output, graph.base)
        if loads:
            part.load(modules[node], graph.base)
        if part.anatomy is not None:
            _describe(graph, node, modules[node])
        plan.append(_step(graph, node))
    for node in modules:
        graph.parts[node].bind(node, graph, modules)
    assembly = Assembly(modules, plan, graph.masked)
    _attach(graph, assembly, load)
    for name, adapter in graph.adapters.items():
        with _located(graph, name):
            adapter.bind(name, graph, modules)
    assembly.refresh()
    return assembly.eval()


def _describe(graph: Graph, node: str, module: nn.Module) -> None:
    """Give a module the anatomy that the spec writes for its node."""
    rows = graph.parts[node].anatomy
    assert rows is not None
    try:
        describe(module, guessed(module).anatomy if isinstance(rows, str) else described(f"anatomy of {node}", rows))
    except AssemblerError as error:
        place = graph.spec.place("nodes", node, "anatomy")
        raise AssemblerError(f"{graph.spec.path}:{place.line}:{place.column}: nodes.{node}: {error}") from error


def _step(graph: Graph, node: str) -> Step:
    part = graph.parts[node]
    wires = [edge.source for edge in graph.incoming[node] if graph.carries(edge)]
    keeps_mask = part.masks == "kept" and graph.ragged(node)
    return Step(
        node,
        extras=tuple(f"{node}_{key}" for key in part.extras),
        sources=tuple(wires),
        targets=frozenset(f"{node}_{key}" for key in part.targets),
        keeps_mask=keeps_mask,
        alone=keeps_mask and not graph.hosted(node),
        feeds=tuple(
            feed
            for name in graph.hosted(node)
            for feed in (
                *((name, e.port, e.source) for e in graph.incoming[name]),
                *((name, wire, f"{name}_{wire}") for wire in getattr(graph.adapters[name], "rows", {})),
            )
        ),
        weight=getattr(part, "weight", 1.0) if part.objective else 1.0,
    )


def _check_known(graph: Graph, node: str) -> None:
    """Every size that the node is built from is a number."""
    for edge in graph.incoming[node]:
        wire = graph.values[edge.source]
        if wire is not None and wire.kind == "tokens" and None in wire.shape:
            missing = [source for part in graph.parts.values() for source in part.weight_sources().values()]
            raise AssemblerError(
                f"{graph.spec.path}: the size of {edge} is not known ({wire}). Run `assembler fetch {graph.spec.path}` "
                f"to bring {', '.join(missing) or 'the weights'}, or give the projector a `width`."
            )


def _place(device: str, loads: bool) -> AbstractContextManager[Any]:
    """Where a node's parameters are made: nowhere when they are read from a file next."""
    if device == "meta":
        return torch.device("meta")
    if loads:
        from accelerate import init_empty_weights

        return init_empty_weights(include_buffers=False)
    return nullcontext()


@contextmanager
def _located(graph: Graph, name: str) -> Iterator[None]:
    """Say where in the spec the adapter stands that something is wrong with."""
    try:
        yield
    except AssemblerError as error:
        place = graph.spec.place("adapters", name)
        raise AssemblerError(f"{graph.spec.path}:{place.line}:{place.column}: adapters.{name}: {error}") from error


def _attach(graph: Graph, assembly: Assembly, load: bool) -> None:
    """Put the adapters in, those that combine others last, and let each host run its composition."""
    indexed = sorted(enumerate(graph.adapters.items()), key=lambda item: item[1][1].trait == "mixer")
    for index, (name, part) in indexed:
        host, seed = assembly.nodes[part.host], graph.document.seed * 1_000_003 + 500_009 + index
        wires = {edge.port: graph.values[edge.source] for edge in graph.incoming[name]}
        with _located(graph, name):
            composition = graph.document.compose.get(part.host, "")
            new = part.attach(host, name, seed, wires, composition)  # type: ignore[arg-type]
            if load and part.weights != "random":
                fill(host, name, read_adapter(fetch(parse_source(part.weights), graph.base)))
        assembly.hosts[name] = part.host
        assembly.adapters[name] = [f"nodes.{part.host}.{key}" for key in new]
    for node, composition in graph.document.compose.items():
        book = adapters_of(assembly.nodes[node])
        assert book is not None
        book.activate(composition)


@contextmanager
def inference(assembly: Assembly) -> Iterator[Assembly]:
    """The module in evaluation mode and without gradients, and as it was afterwards."""
    mode = assembly.training
    assembly.eval()
    try:
        with torch.no_grad():
            yield assembly
    finally:
        assembly.train(mode)
