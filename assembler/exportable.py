"""Whether a graph can be exported, told from the spec alone: nothing is compiled, loaded or traced."""

from __future__ import annotations

from collections.abc import Iterator

from assembler.graph import Graph
from assembler.problems import Problem


def onnx_problems(graph: Graph) -> list[Problem]:
    """Every node and adapter that has no ONNX graph, with the reason; `graph` itself has no problems."""
    nodes = {**graph.parts, **graph.adapters}
    found = [
        Problem(f"{name}: {reason}", graph.spec.place(section, name), node=name if name in nodes else None)
        for section, name, reason in _reasons(graph)
    ]
    return sorted(found, key=lambda problem: (problem.place.line, problem.place.column))


def language_model(graph: Graph) -> str | None:
    """The node that a bundle answers with: the graph's one causal LM."""
    lms = [node for node in graph.objectives if "input_ids" in graph.parts[node].extras]
    return lms[0] if len(lms) == 1 else None


def feeder(graph: Graph, node: str, slot: str) -> str:
    """The node that is wired to a slot."""
    return next(edge.source for edge in graph.incoming[node] if edge.port == slot)


def _reasons(graph: Graph) -> Iterator[tuple[str, str, str]]:
    """(section of the spec, name, why)."""
    node = language_model(graph)
    if node is None:
        count = sum("input_ids" in graph.parts[name].extras for name in graph.objectives)
        first = (graph.objectives or list(graph.parts) or ["the graph"])[0]
        yield "nodes", first, f"a bundle answers with one causal LM, and this graph has {count}"
        return
    feeders = [feeder(graph, node, slot) for slot in graph.slot_tokens(node)]
    around = sorted({name for source in feeders for name in graph.ancestors(source)})
    for name in [node, *around]:
        part = graph.parts[name]
        if reason := part.unexported(graph.base):
            yield "nodes", name, f"{part.type} has no ONNX graph: {reason}"
        elif name != node and (part.objective or set(part.extras) - set(part.targets)):
            yield "nodes", name, f"{part.type} reads the data itself, and a slot's graph takes only inputs"
    for name, adapter in graph.adapters.items():
        if adapter.host not in (node, *around):
            continue
        if reason := adapter.unexported(graph.base):
            yield "adapters", name, f"{adapter.type} has no ONNX graph: {reason}"
        elif adapter.host == node and graph.incoming[name]:
            source = graph.incoming[name][0].source
            why = f"reads {source} inside the language model, and the decoder's graph has no input for it"
            yield "adapters", name, f"{adapter.type} {why}"
