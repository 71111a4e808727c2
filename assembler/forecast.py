"""Summary and forecast: parameters counted on the meta device; memory and FLOPs of a step without its data.

The step is run on fake tensors, which have sizes and no bytes. Every storage that comes to life is counted until it is
freed, so that the forecast is a peak over time, as torch's own accounting gives it, and not a sum of guesses.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from assembler.compile import Assembly, compile_graph
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.spec import Stage

TEXT_TOKENS = 32
"""Words of a prompt and answer are counted as this many tokens where the tokenizer is not asked."""


def summary(graph: Graph) -> dict[str, Any]:
    """Exact parameters a node, adapter and stage; shapes on wires; tokens a sample; memory and FLOPs a stage's step.

    Keys: total, trainable, nodes.ID.{parameters,trainable}, adapters.ID.{parameters,trainable}, wires."a -> b",
    tokens.ID, stages.NAME.{trainable,memory_bytes,flops,...}, serving.

    Raises:
        AssemblerError: the graph has problems, or a config is not on this computer.
    """
    assembly = compile_graph(graph, device="meta")
    sizes = {key: p.numel() for key, p in assembly.named_parameters()}
    stages = graph.document.stages
    learns = {name for stage in stages for name in stage.train}

    def row(name: str) -> dict[str, int]:
        own = assembly.of(name)
        learning = {key for part in learns if part == name or part.startswith(f"{name}.") for key in assembly.of(part)}
        return {"parameters": sum(map(sizes.__getitem__, own)), "trainable": sum(map(sizes.__getitem__, learning))}

    nodes = {node: row(node) for node in assembly.nodes}
    adapters = {name: row(name) for name in assembly.adapters}
    everything = [*nodes.values(), *adapters.values()]
    return {
        "name": graph.document.name,
        "total": sum(item["parameters"] for item in everything),
        "trainable": sum(item["trainable"] for item in everything),
        "nodes": nodes,
        "adapters": adapters,
        "wires": {str(edge): str(graph.values[edge.source]) for edge in graph.edges},
        "tokens": {node: sum(graph.slot_tokens(node).values()) for node in graph.objectives},
        "stages": {stage.name: forecast(graph, assembly, stage) for stage in stages},
        "serving": serving(graph, assembly),
    }


def forecast(graph: Graph, assembly: Assembly, stage: Stage, text_tokens: int = TEXT_TOKENS) -> dict[str, Any]:
    """One step of a stage: `trainable`, `memory_bytes` and its shares, `flops` in all and a node, `tokens`.

    `memory_bytes` is the peak of tensor memory: weights, gradients, the optimiser's two moments, and what the forward
    keeps for the backward. An LM is taken to get `text_tokens` words beside its slots' tokens.
    """
    with fake(assembly) as model:
        model.only(stage.objectives)
        model.train_only(stage.train)
        model.train()
        batch = fake_batch(graph, stage.batch, text_tokens)
        learning = [p for p in model.parameters() if p.requires_grad]
        counter = FlopCounterMode(display=False)
        with Storages() as storages, counter:
            storages.hold([*model.parameters(), *model.buffers()])
            weights = storages.now
            storages.hold(batch.values())
            # AdamW's moments exist from the end of the first step, so a later step has them while it runs.
            moments = [torch.empty_like(p) for p in learning for _ in range(2)]
            before = storages.now
            loss = model(**batch)["loss"]
            activations = storages.now - before
            if learning:
                loss.backward()
            del loss
        own = sum(p.numel() * p.element_size() for p in learning)
        del moments
        return {
            "trainable": sum(p.numel() for p in learning),
            "memory_bytes": max(storages.peak, weights + 3 * own + _update_bytes(learning)),
            "weights_bytes": weights,
            "gradients_bytes": own,
            "optimizer_bytes": 2 * own,
            "activations_bytes": activations,
            "flops": counter.get_total_flops(),
            "node_flops": {node: _flops_of(counter, node) for node in assembly.nodes},
            "tokens": {n: sum(graph.slot_tokens(n).values()) + text_tokens for n in _lms(graph)},
        }


def _flops_of(counter: FlopCounterMode, node: str) -> int:
    """Of a node's own module, as the counter names it; nothing for one that was not run."""
    return sum(counter.get_flop_counts().get(f"{Assembly.__name__}.nodes.{node}", {}).values())


def _update_bytes(learning: list[nn.Parameter]) -> int:
    """What AdamW holds while it updates: on a GPU a copy of all moments' squares, on a CPU of one tensor at a time."""
    sizes = [p.numel() * p.element_size() for p in learning]
    return sum(sizes) if torch.cuda.is_available() else 2 * max(sizes, default=0)


def serving(graph: Graph, assembly: Assembly) -> dict[str, int]:
    """Bytes of the weights, and of the key and value cache a token."""
    weights = sum(p.numel() * p.element_size() for p in assembly.parameters())
    cache = 0
    for node in graph.objectives:
        lm: Any = getattr(assembly.nodes[node], "lm", None)
        config = getattr(lm, "config", None)
        if config is not None:
            config = config.get_text_config()
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            cache += 2 * config.num_hidden_layers * heads * width * next(lm.parameters()).element_size()
    return {"weights_bytes": weights, "cache_bytes_per_token": cache}


def _lms(graph: Graph) -> list[str]:
    return [node for node in graph.objectives if _is_lm(graph, node)]


def _is_lm(graph: Graph, node: str) -> bool:
    return "input_ids" in graph.parts[node].extras


@contextlib.contextmanager
def fake(assembly: Assembly) -> Iterator[Assembly]:
    """The assembly with every tensor a fake CPU tensor of its size, and its own tensors back afterwards."""
    own: list[tuple[nn.Module, str, str, Tensor]] = []
    seen: dict[int, Tensor] = {}
    flags = {id(p): p.requires_grad for p in assembly.parameters()}
    mode, training = FakeTensorMode(allow_non_fake_inputs=True), assembly.training
    trained, counted = assembly.trained, assembly.counted
    for module in assembly.modules():
        for kind in ("_parameters", "_buffers"):
            own += [(module, kind, name, x) for name, x in getattr(module, kind).items() if x is not None]
    try:
        with mode:
            for module, kind, name, tensor in own:
                if id(tensor) not in seen:
                    empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
                    seen[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if kind == "_parameters" else empty
                getattr(module, kind)[name] = seen[id(tensor)]
            yield assembly
    finally:
        for module, kind, name, tensor in own:
            getattr(module, kind)[name] = tensor
        for parameter in assembly.parameters():
            parameter.requires_grad_(flags[id(parameter)])
        assembly.trained, assembly.counted = trained, counted
        assembly.train(training)


def fake_batch(graph: Graph, batch: int, text_tokens: int) -> dict[str, Tensor]:
    """A batch of the right shapes: inputs as on the wires, prompts of the slots' tokens and `text_tokens` words."""
    found: dict[str, Tensor] = {}
    for node in graph.order:
        part, value = graph.parts[node], graph.values[node]
        if value is None:
            raise AssemblerError(f"{graph.spec.path}: nodes.{node}: its shape is not known yet")
        if _is_lm(graph, node):
            rows = sum(graph.slot_tokens(node).values())
            length, first = rows + text_tokens, graph.vocabulary(node)
            slots = torch.arange(first, first + batch * rows).view(batch, rows)
            words = torch.zeros(batch, text_tokens, dtype=torch.long)
            found[f"{node}_input_ids"] = torch.cat([slots, words], dim=1)
            found[f"{node}_attention_mask"] = torch.ones(batch, length, dtype=torch.long)
            found[f"{node}_labels"] = torch.zeros(batch, max(1, text_tokens // 8), dtype=torch.long)
        elif part.extras:
            found.update({f"{node}_{key}": x for key, x in part.fake_extras(graph, batch).items()})
        elif node in graph.samples:
            found.update(fake_sample(graph, node, batch))
    return found


def fake_sample(graph: Graph, node: str, batch: int) -> dict[str, Tensor]:
    """The tensors of an input node: numbers, or token ids of a text, and a mask where lengths differ."""
    value = graph.values[node]
    assert value is not None
    if value.kind == "text":
        shape = (batch, graph.processor(node).length)  # type: ignore[union-attr]
        return {node: torch.zeros(shape, dtype=torch.long), f"{node}_mask": torch.ones(shape, dtype=torch.bool)}
    sizes = [int(dim) for dim in value.shape[1:] if isinstance(dim, int)]
    mask = {f"{node}_mask": torch.ones(batch, sizes[0], dtype=torch.bool)} if value.ragged else {}
    return {node: torch.zeros(batch, *sizes), **mask}


def drawn_sample(graph: Graph, node: str, batch: int) -> dict[str, Tensor]:
    """As `fake_sample`, with numbers drawn at random and, where lengths differ, masks of several lengths."""
    found = fake_sample(graph, node, batch)
    if found[node].is_floating_point():
        found[node] = torch.randn_like(found[node])
    if f"{node}_mask" in found:
        size = found[node].shape[1]
        lengths = torch.linspace(size, max(1, size // 2), batch).round()  # from all down to half
        found[f"{node}_mask"] = torch.arange(size) < lengths.unsqueeze(1)
    return found


class Storages(TorchDispatchMode):
    """Bytes of all living storages, `now` and at their `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.living: dict[int, weakref.finalize] = {}

    def hold(self, tensors: Any) -> None:
        """Count tensors that were there before."""
        for tensor in tensors:
            self._count(tensor)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.living:
            return
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self.living[key] = weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.now -= size
        self.living.pop(key, None)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return out
