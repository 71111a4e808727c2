"""What needs torch, counted in a process of its own: parameters, forecasts, sites and tokens of a spec.

One line of JSON in, one out. Each part of the answer stands alone, so that a graph that is half built has the counts of
the nodes that can be built already.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from assembler.check import check
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.preview import prompt_pieces
from assembler.spec import parse, plain


def answer(text: str, path: Path) -> dict[str, Any]:
    """Costs of a spec's text; `state` is `ready`, or `failed` with the reason why there is no forecast."""
    graph = check(parse(text, path))
    found: dict[str, Any] = {"state": "ready", "why": "", "stages": {}, "serving": None, "adapters": {}}
    modules, counts = _built(graph)
    try:
        found |= _whole(graph, modules)
    except AssemblerError as error:
        found |= {"state": "failed", "why": str(error), "nodes": counts}
    everything = [*found["nodes"].values(), *found["adapters"].values()]
    return {
        **found,
        "total": sum(item["parameters"] for item in everything),
        "trainable": sum(item["trainable"] for item in everything),
        "sites": {node: _sites(module) for node, module in modules.items()},
        "prompts": _prompts(graph),
    }


def _built(graph: Graph) -> tuple[dict[str, Any], dict[str, Any]]:
    """The modules, without weights, of the nodes whose wires are known, and how many parameters each has."""
    import torch

    modules: dict[str, Any] = {}
    for node in graph.order:
        inputs = {edge.port: graph.values.get(edge.source) for edge in graph.incoming[node]}
        output = graph.values.get(node)
        if output is None or graph.is_input(node) or None in inputs.values():
            continue
        try:
            with torch.device("meta"):
                known: dict[str, Any] = dict(inputs)
                modules[node] = graph.parts[node].build(known, output, graph.base)
        except (AssemblerError, ValueError, TypeError):
            continue  # sizes that are not known yet; the forecast says which
    counts = {node: sum(p.numel() for p in module.parameters()) for node, module in modules.items()}
    learns = {name for stage in _stages(graph) for name in stage.train}
    costs = {n: {"parameters": c, "trainable": c if n in learns else 0} for n, c in counts.items()}
    return modules, {node: {**cost, "bytes": _bytes(cost, modules[node])} for node, cost in costs.items()}


def _bytes(cost: dict[str, int], host: Any) -> int:
    """Memory of weights, and of the gradients and AdamW's two moments of those that are trained."""
    each = next((p.element_size() for p in host.parameters()), 4) if host is not None else 4
    return each * (cost["parameters"] + 3 * cost["trainable"])


def _stages(graph: Graph) -> list[Any]:
    return graph.spec.document.stages if graph.spec.document else []


def _whole(graph: Graph, modules: dict[str, Any]) -> dict[str, Any]:
    """The summary of a graph without problems; FLOPs of a node are those of the stage in which it does most."""
    from assembler.forecast import summary

    if graph.problems:
        raise AssemblerError("a forecast needs a graph without problems")
    report = summary(graph)
    for section in ("nodes", "adapters"):
        for name, cost in report[section].items():
            cost["bytes"] = _bytes(cost, modules.get(graph.adapters[name].host if section == "adapters" else name))
    for name, cost in report["nodes"].items():
        cost["flops"] = max((stage["node_flops"][name] for stage in report["stages"].values()), default=0)
    return {key: report[key] for key in ("nodes", "adapters", "stages", "serving")}


def _sites(module: Any) -> list[str]:
    from assembler.anatomy import sites_of

    try:
        return list(sites_of(module))
    except AssemblerError:
        return []  # no anatomy fits: nothing can be attached here


def _prompts(graph: Graph) -> dict[str, Any]:
    found = {}
    for node, part in graph.parts.items():
        if hasattr(part, "load_tokenizer") and hasattr(part, "prepared"):
            try:
                found[node] = _pieces(graph, node, part)
            except (AssemblerError, OSError, ValueError) as error:
                print(f"{node}: no preview of its prompt: {error}", file=sys.stderr)
    return found


def _pieces(graph: Graph, node: str, part: Any) -> list[dict[str, Any]]:
    """The prompt of a node as its model gets it; tokens are None where they depend on what is not here."""
    from assembler.weights import cached, parse_source

    source = part.tokenizer or part.weights
    if source != "random" and cached(parse_source(source), graph.base) is None:
        return []
    return prompt_pieces(graph, node, _row(graph), part.load_tokenizer(graph.base))


_rows: dict[str, dict[str, Any]] = {}


def _row(graph: Graph) -> dict[str, Any]:
    """The first sample of the data, read once for each dataset; empty where it cannot be read."""
    if graph.dataset is None:
        return {}
    key = f"{graph.dataset!r} {graph.base}"
    if key not in _rows:
        try:
            rows = graph.dataset.rows(graph.base)
            _rows[key] = dict(rows[0]) if len(rows) else {}
        except (AssemblerError, OSError) as error:
            print(f"no sample: {error}", file=sys.stderr)
            _rows[key] = {}
    return _rows[key]


def main() -> None:
    """Answer line by line until the page is gone."""
    if hasattr(os, "nice"):
        os.nice(10)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            found = answer(asked["text"], Path(asked["path"]))
        except Exception as error:  # a library's own: the page says it, and the next line is answered
            found = {"state": "failed", "why": f"{type(error).__name__}: {error}"}
        print(json.dumps(plain(found)), file=answers, flush=True)


if __name__ == "__main__":
    main()
