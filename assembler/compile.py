"""Compile: a checked graph becomes one ordinary torch module whose forward is a flat list of calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from assembler.errors import AssemblerError
from assembler.graph import Graph


@dataclass(frozen=True)
class Step:
    """One call of the plan: the node, its batch tensors, and the nodes whose values follow them."""

    node: str
    extras: tuple[str, ...]
    sources: tuple[str, ...]


class Assembly(nn.Module):
    """The model of a spec. `forward(**batch)` takes the tensors of `Batches` and gives `loss` and `logits`, or the last
    node's value as `output` where no node gives a loss.

    Attributes:
        nodes: the module of every node that has one, by name.
        plan: the calls, in order.
        adapters: adapter name -> names of its parameters in this module.
    """

    def __init__(self, modules: dict[str, nn.Module], plan: list[Step]) -> None:
        super().__init__()
        self.nodes = nn.ModuleDict(modules)
        self.plan = plan
        self.adapters: dict[str, list[str]] = {}
        self.trained: frozenset[str] = frozenset()

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        values = self.values(batch)
        outputs = [values[step.node] for step in self.plan if isinstance(values[step.node], dict)]
        if len(outputs) == 1:
            return outputs[0]
        if not outputs:
            return {"output": values[self.plan[-1].node]}
        return {"loss": torch.stack([out["loss"] for out in outputs]).sum(), "logits": outputs[0]["logits"]}

    def values(self, batch: dict[str, Tensor], before: str | None = None) -> dict[str, Any]:
        """The batch's tensors and every node's value, by name; nothing from the node `before` on."""
        values: dict[str, Any] = dict(batch)
        for step in self.plan:
            if step.node == before:
                break
            extras = [batch[key] for key in step.extras]
            values[step.node] = self.nodes[step.node](*extras, *[values[source] for source in step.sources])
        return values

    def features(self, target: str, batch: dict[str, Tensor]) -> list[Tensor]:
        """The values on the wires into `target`, in the order of its ports; nothing after them is computed."""
        step = next(step for step in self.plan if step.node == target)
        values = self.values(batch, before=target)
        return [values[source] for source in step.sources]

    def of(self, name: str) -> list[str]:
        """Names of the parameters of a node, without its adapters', or of an adapter."""
        if name in self.adapters:
            return self.adapters[name]
        foreign = {key for keys in self.adapters.values() for key in keys}
        prefix = f"nodes.{name}."
        return [key for key, _ in self.named_parameters() if key.startswith(prefix) and key not in foreign]

    def train_only(self, names: list[str]) -> None:
        """Let exactly the parameters of these nodes and adapters learn; every other node goes to evaluation mode."""
        chosen = {key for name in names for key in self.of(name)}
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
            chosen = {key for name in self.adapters for key in self.adapters[name]}
            inside = {key.rpartition(".")[0].rpartition(".")[0] for key in chosen}
            for node, module in self.nodes.items():
                if node not in self.trained:
                    module.eval()
            for path in inside:
                self.get_submodule(path).train(mode)
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
        wires = tuple(e.source for e in graph.incoming[node] if graph.values[e.source].kind != "text")  # type: ignore[union-attr]
        plan.append(Step(node, tuple(f"{node}_{key}" for key in part.extras), wires))
    assembly = Assembly(modules, plan)
    _attach(graph, assembly)
    return assembly.eval()


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


def _attach(graph: Graph, assembly: Assembly) -> None:
    for index, (name, part) in enumerate(graph.adapters.items()):
        try:
            new = part.attach(assembly.nodes[part.host], name, seed=graph.document.seed * 1_000_003 + 500_009 + index)
        except AssemblerError as error:
            place = graph.spec.place("adapters", name)
            raise AssemblerError(f"{graph.spec.path}:{place.line}:{place.column}: adapters.{name}: {error}") from error
        _rename(assembly, part.host, new, name)


def _rename(assembly: Assembly, host: str, new: list[str], name: str) -> None:
    """Record an adapter's parameters under their full names."""
    assembly.adapters[name] = [f"nodes.{host}.{key}" for key in new]


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
