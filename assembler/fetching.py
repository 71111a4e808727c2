"""The weights and data of a graph brought to this computer, after which every size on its wires is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from assembler.check import check
from assembler.graph import Graph
from assembler.spec import Spec
from assembler.weights import fetch, parse_source


def fetch_weights(graph: Graph, say: Callable[[str], None] = lambda source: None) -> dict[str, Path]:
    """Where the file or folder of each of the graph's weight sources lies now; `say` is told of each before."""
    found: dict[str, Path] = {}
    for part in [*graph.parts.values(), *graph.adapters.values()]:
        for source in part.weight_sources().values():
            if source not in found:
                say(source)
                found[source] = fetch(parse_source(source), graph.base)
    return found


def fetched_graph(spec: Spec | Path, say: Callable[[str], None] = lambda source: None) -> Graph:
    """The checked graph of a spec whose weights and data are here.

    Raises:
        AssemblerError: the spec has problems, before or after its weights are known, or they cannot be fetched.
    """
    if fetch_weights(graph := check(spec).require(), say):
        graph = check(spec).require()
    if graph.dataset is not None:
        graph.dataset.fetch(graph.base, say)
    return graph
