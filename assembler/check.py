"""Check: what is wrong with a spec, and the value on every wire, from rules and configs alone.

Nothing here loads a weight, fetches a file or imports torch; what cannot be known is left unknown.
"""

from __future__ import annotations

from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.part import AdapterPart, DatasetPart, Part, WireError
from assembler.problems import Fix, Problem
from assembler.registry import family, parts
from assembler.spec import Edge, Spec, Stage, parse_edge, read, validation_problem
from assembler.suggest import nearest
from assembler.values import Dim, Value

RESERVED = frozenset([
    "T_destination", "add_module", "answer", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear",
    "compile", "cpu", "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer",
    "get_extra_state", "get_parameter", "get_submodule", "half", "ipu", "items", "keys", "label", "labels",
    "load_state_dict", "logits", "loss", "modules", "mtia", "named_buffers", "named_children", "named_modules",
    "named_parameters", "parameters", "pop", "register_backward_hook", "register_buffer", "register_forward_hook",
    "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook",
    "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook", "register_module",
    "register_parameter", "register_state_dict_post_hook", "register_state_dict_pre_hook", "requires_grad_",
    "return_loss", "self", "set_extra_state", "set_submodule", "share_memory", "smart_apply", "state_dict", "to",
    "to_empty", "train", "training", "type", "update", "values", "xpu", "zero_grad",
])  # fmt: skip
"""Names that torch's modules or a batch already have."""


def check(spec: Spec | Path) -> Graph:
    """The graph of a spec, with every problem found; never raises for a bad spec."""
    spec = spec if isinstance(spec, Spec) else read(spec)
    graph = Graph(spec, problems=list(spec.problems))
    if spec.document is None:
        return graph
    _parse_nodes(graph)
    _parse_adapters(graph)
    _check_compose(graph)
    _parse_data(graph)
    _parse_edges(graph)
    _order(graph)
    _infer(graph)
    _check_samples(graph)
    _check_data(graph)
    _check_stages(graph)
    graph.problems.sort(key=lambda problem: (problem.place.line, problem.place.column))
    return graph


def _add(graph: Graph, message: str, keys: tuple[str | int, ...], **more: Any) -> None:
    graph.problems.append(Problem(message, graph.spec.place(*keys), **more))


def _part(graph: Graph, raw: dict[str, Any], keys: tuple[str | int, ...], wanted: type[Part]) -> Any:
    """The part that a mapping with `type` describes, or None when it describes none."""
    name, known = raw.get("type"), {key: cls for key, cls in parts().items() if issubclass(cls, wanted)}
    if wanted is Part:
        known = {key: cls for key, cls in known.items() if not issubclass(cls, AdapterPart | DatasetPart)}
    here = ".".join(map(str, keys))
    if not isinstance(name, str):
        _add(graph, f"{here}: `type` is missing; name a part, such as {next(iter(known), 'encoder.timm')}", keys)
        return None
    if name not in known:
        _add(graph, f"{here}: there is no {_noun(wanted)} {name[:80]!r}{nearest(name, known)}", (*keys, "type"))
        return None
    options = {key: item for key, item in raw.items() if key != "type"}
    try:
        return known[name].model_validate(options)
    except ValidationError as error:
        for item in error.errors():
            graph.problems.append(validation_problem(item, graph.spec.tree, keys, known[name]))
    except RecursionError:
        _add(graph, f"{here}: nested too deeply", keys)
    return None


def _noun(wanted: type[Part]) -> str:
    return {AdapterPart: "adapter", DatasetPart: "dataset"}.get(wanted, "part")


def _parse_nodes(graph: Graph) -> None:
    for node, raw in graph.document.nodes.items():
        if not node.isidentifier() or len(node) > 64 or node in RESERVED:
            _add(graph, f"nodes: {node[:80]!r} is no name for a node; use letters, digits and _", ("nodes", node))
            continue
        part = _part(graph, raw, ("nodes", node), Part)
        if part is not None:
            graph.parts[node] = part
    for node, part in graph.parts.items():
        for key in {f"{node}_{extra}" for extra in (*part.extras, "mask")} & set(graph.document.nodes):
            _add(graph, f"nodes: {key} is what the batch calls a tensor of {node}; rename one", ("nodes", key))


def _parse_edges(graph: Graph) -> None:
    taken: dict[tuple[str, str], str] = {}
    for index, text in enumerate(graph.document.edges):
        edge = parse_edge(text)
        if edge is None:
            _add(graph, f"edges: {text[:80]!r} is not of the form `a -> b` or `a -> b.port`", ("edges", index))
        elif _fits(graph, edge, index):
            other = taken.setdefault((edge.target, edge.port), str(edge))
            if other != str(edge) or edge in graph.edges:
                _add(
                    graph,
                    f"{edge}: the port is already fed by `{other}`; remove one",
                    ("edges", index),
                    node=edge.target,
                )
            else:
                graph.edges.append(edge)


def _fits(graph: Graph, edge: Edge, index: int) -> bool:
    """Whether both ends of a wire exist."""
    targets: dict[str, Any] = {**graph.document.nodes, **graph.document.adapters}
    for node, other, named, present in (
        (edge.source, edge.target, graph.document.nodes, set(graph.parts)),
        (edge.target, edge.source, targets, {*graph.parts, *graph.adapters}),
    ):
        if node not in present:
            graph.dangling.add(other)
            if node not in named:
                _add(graph, f"{edge}: there is no node {node}{nearest(node, named)}", ("edges", index))
            return False
    part = graph.receiver(edge.target)
    ports = part.ports()
    if edge.port in ports:
        return True
    fed = {e.port for e in graph.edges if e.target == edge.target}
    has = graph.dataset.fields(graph.base) if graph.dataset else {}
    free = [port for port in ports if port not in fed and graph.column(port) not in has]
    fix = None
    if edge.port == "in" and len(free) == 1:
        fix = _rewire(edge, [f"{edge.source} -> {edge.target}.{free[0]}"], f"name the slot {free[0]}")
    elif change := part.port_fix(edge.source if edge.port == "in" else edge.port):
        path = ["nodes", edge.target, change[0]]
        name = edge.source if edge.port == "in" else edge.port
        wires = () if edge.port != "in" else _rewire(edge, [f"{edge.source} -> {edge.target}.{name}"], "").operations
        fix = Fix(f"add {{{name}}} to the {change[0]}", ({"op": "set", "path": path, "value": change[1]}, *wires))
    known = f"it has {', '.join(ports)}" if ports else "it takes no wire"
    message = f"{edge}: {edge.target} ({part.type}) has no input {edge.port}; {known}"
    _add(graph, message, ("edges", index), node=edge.target, port=edge.port, fix=fix)
    return False


def _rewire(edge: Edge, edges: list[str], title: str) -> Fix:
    return Fix(title, ({"op": "rewire", "edge": str(edge), "edges": edges},))


def _order(graph: Graph) -> None:
    sorter: TopologicalSorter[str] = TopologicalSorter({node: [] for node in graph.parts})
    for edge in graph.edges:
        target = graph.adapters[edge.target].host if edge.target in graph.adapters else edge.target
        if target in graph.parts:
            sorter.add(target, edge.source)
    try:
        graph.order = list(sorter.static_order())
    except CycleError as error:
        ring = [str(node) for node in error.args[1]]
        first = next((edge for edge in graph.edges if edge.source in ring and edge.target in ring), None)
        message = f"edges: {' -> '.join(reversed(ring[:12]))} is a circle; remove one of its wires"
        _add(graph, message, _edge_keys(graph, first), node=ring[0])


def _edge_keys(graph: Graph, edge: Edge | None) -> tuple[str | int, ...]:
    """Where an edge stands in the file."""
    for index, text in enumerate(graph.document.edges):
        if edge is not None and parse_edge(text) == edge:
            return ("edges", index)
    return ("edges",)


def _infer(graph: Graph) -> None:
    """Widths wanted, from the end to the start; then values, from the start to the end."""
    for node in reversed(graph.order):
        found = (_wanted(graph, edge) for edge in graph.outgoing[node])
        graph.wants[node] = next((width for width in found if width is not None), None)
    for node in graph.order:
        graph.values[node] = _value(graph, node)
    for name in graph.adapters if graph.order else ():
        _inputs(graph, name)


def _wanted(graph: Graph, edge: Edge) -> Dim:
    part = graph.receiver(edge.target)
    try:
        own = part.wants(edge.port, graph.base)
    except AssemblerError:
        return None  # said at the node itself, by its shape rule
    return graph.wants.get(edge.target) if own is None and part.passes(edge.port) else own


def _value(graph: Graph, node: str) -> Value | None:
    part, inputs = graph.parts[node], _inputs(graph, node)
    if inputs is None:
        return None
    try:
        value = part.shape(inputs, graph.wants[node], graph.base)
        return replace(value, ragged=True) if part.masks == "kept" and graph.ragged(node) else value
    except (WireError, AssemblerError) as error:
        where = {"port": error.port, "fix": error.fix} if isinstance(error, WireError) else {}
        _add(graph, f"nodes.{node}: {error}", ("nodes", node), node=node, **where)
        return None


def _inputs(graph: Graph, node: str) -> dict[str, Value] | None:
    """The values on the wires into a node or adapter by port, or None when one is missing or does not fit."""
    part, inputs, good = graph.receiver(node), {}, True
    keys = ("nodes" if node in graph.parts else "adapters", node)
    ports = part.ports()
    for edge in graph.incoming[node]:
        wire = graph.values[edge.source]
        if wire is None:
            good = False
        elif wire.kind not in ports[edge.port]:
            kinds = " or ".join(ports[edge.port])
            message = f"{edge}: {edge.source} gives {wire}, and {node}.{edge.port} takes {kinds}"
            _add(graph, message, _edge_keys(graph, edge), node=node, port=edge.port)
            good = False
        else:
            inputs[edge.port] = wire
            _check_width(graph, edge, wire)
            good &= _check_ragged(graph, edge, wire)
    missing = [p for p in ports if p not in part.optional and all(e.port != p for e in graph.incoming[node])]
    for port in missing if node not in graph.dangling else ():
        kinds = " or ".join(ports[port])
        _add(
            graph,
            f"{'.'.join(keys)}: nothing is wired to `{port}`, which takes {kinds}",
            keys,
            node=node,
            port=port,
        )
    return None if missing or not good else inputs


def _check_ragged(graph: Graph, edge: Edge, wire: Value) -> bool:
    """Whether samples of different lengths can go into this port."""
    part = graph.receiver(edge.target)
    if not wire.ragged or part.masks != "refused" or not graph.carries(edge):
        return True
    message = (
        f"{edge}: {edge.source} gives samples of different lengths, and {edge.target} ({part.type}) cannot tell "
        "padding from content; put a pooling or resampling projector between them"
    )
    _add(graph, message, _edge_keys(graph, edge), node=edge.target, port=edge.port)
    return False


def _check_samples(graph: Graph) -> None:
    """The consumers of each input agree on how its samples become a tensor."""
    for node in graph.samples:
        known = all(graph.values.get(edge.target, True) is not None for edge in graph.outgoing[node])
        if known and node not in graph.dangling and (graph.outgoing[node] or graph.document.stages):
            try:
                graph.processor(node)
            except AssemblerError as error:
                _add(graph, str(error), ("nodes", node), node=node)


def _check_width(graph: Graph, edge: Edge, wire: Value) -> None:
    """A width that a port needs and the wire does not have, and the projector that would mend it."""
    if wire.kind not in ("tokens", "embedding", "features"):
        return
    want, have = _wanted(graph, edge), wire["width"]
    if want is None or have is None or want == have:
        return
    name, number = "bridge", 1
    while name in graph.document.nodes or name in graph.document.adapters:
        number += 1
        name = f"bridge{number}"
    path = ["nodes", name]
    tail = "" if edge.port == "in" else f".{edge.port}"
    fix = Fix(
        f"insert a projector {have} -> {want}",
        (
            {"op": "set", "path": path, "value": {"type": "projector.linear"}},
            {
                "op": "rewire",
                "edge": str(edge),
                "edges": [f"{edge.source} -> {name}", f"{name} -> {edge.target}{tail}"],
            },
        ),
    )
    message = f"{edge}: {edge.source} gives width {have}, and {edge.target} needs {want}"
    _add(graph, message, _edge_keys(graph, edge), node=edge.target, port=edge.port, fix=fix)


def _parse_adapters(graph: Graph) -> None:
    from assembler.anatomy import expanded

    for name, raw in graph.document.adapters.items():
        keys = ("adapters", name)
        if not name.isidentifier() or len(name) > 64 or name in graph.document.nodes or name in RESERVED:
            reason = "a node has it already" if name in graph.document.nodes else "use letters, digits and _"
            _add(graph, f"adapters: {name[:80]!r} is no name for an adapter; {reason}", keys)
            continue
        part = _part(graph, raw, keys, AdapterPart)
        if part is None:
            continue
        if part.host not in graph.document.nodes:
            near = nearest(part.host, graph.document.nodes)
            _add(graph, f"adapters.{name}: there is no node {part.host[:80]}{near}", (*keys, "host"), node=part.host)
        elif part.host in graph.parts and family(graph.parts[part.host].type) == "input":
            _add(graph, f"adapters.{name}: {part.host} holds no module to adapt", (*keys, "host"), node=part.host)
        try:
            expanded(getattr(part, "sites", "layers.*"))
        except AssemblerError as error:
            _add(graph, f"adapters.{name}: {error}", (*keys, "sites"), node=part.host)
            continue
        graph.adapters[name] = part


def _check_compose(graph: Graph) -> None:
    """The compositions: known adapters, blocks that nest, and no adapter that trains or combines and is left out."""
    from assembler.adapters import blocks

    named: set[str] = set()
    for host, text in graph.document.compose.items():
        keys = ("compose", host)
        if host not in graph.document.nodes:
            _add(graph, f"compose: there is no node {host[:80]}{nearest(host, graph.document.nodes)}", keys)
            continue
        try:
            tree = blocks.parse(text)
            named |= set(tree.names())
            if {*tree.names()} <= {*graph.adapters} | {n for n in tree.names() if n not in graph.document.adapters}:
                blocks.check(tree, {name: graph.adapters[name].trait for name in graph.hosted(host)}, host, text)
        except AssemblerError as error:
            message = str(error)
            prefix = "" if message.startswith("compose.") else f"compose.{host}: "
            _add(graph, prefix + message, keys, node=host)
    trained = {name for stage in graph.document.stages for name in stage.train}
    for name, part in graph.adapters.items():
        if name in named:
            continue
        if part.trait == "mixer":
            way = f"add `compose: {{{part.host}: ...}}` with fuse(a, b, by={name}) or route(a, b, by={name})"
            _add(graph, f"adapters.{name}: it combines others and stands in no composition; {way}", ("adapters", name))
        elif part.host in graph.document.compose and name in trained:
            way = f"add it to compose.{part.host}, or take it out of `train`"
            _add(graph, f"adapters.{name}: a stage trains it and no composition runs it; {way}", ("adapters", name))


def _parse_data(graph: Graph) -> None:
    data = graph.document.data
    if data is not None:
        graph.dataset = _part(graph, {"type": data.type, **data.options}, ("data",), DatasetPart)


def _check_data(graph: Graph) -> None:
    data = graph.document.data
    if data is None or graph.dataset is None:
        return
    _check_metrics(graph)
    has = graph.dataset.fields(graph.base)
    needs: dict[str, tuple[str, str]] = {}
    for node, item in graph.parts.items():
        wired = {edge.port for edge in graph.edges if edge.target == node}
        needs.update({name: (kind, node) for name, kind in item.columns(node, wired).items()})
    for name, adapter in graph.adapters.items():
        for wire, column in getattr(adapter, "rows", {}).items():
            if has.get(column) != "label":
                near = nearest(column, [key for key, kind in has.items() if kind == "label"])
                message = f"adapters.{name}.rows: the data has no column {column[:80]} of whole numbers{near}"
                _add(graph, message, ("adapters", name, "rows", wire), node=name)
    if data.sample is not None and has.get(data.sample.by) not in ("label", "text"):
        near = nearest(data.sample.by, [key for key, kind in has.items() if kind in ("label", "text")])
        message = f"data.sample.by: the data has no column {data.sample.by[:80]} of labels or text{near}"
        _add(graph, message, ("data", "sample", "by"))
    whole = len(graph.parts) == len(graph.document.nodes)
    for name in data.columns:
        if whole and name not in needs:
            _add(graph, f"data.columns: nothing reads {name}{nearest(name, needs)}", ("data", "columns", name))
    for name, (kind, node) in needs.items():
        column = graph.column(name)
        if has.get(column) != kind:
            fits = [key for key, other in has.items() if other == kind]
            what = f"holds {has[column]}" if column in has else "is not there"
            fix = None
            if len(fits) == 1:
                columns = {**data.columns, name: fits[0]}
                operation = {"op": "set", "path": ["data", "columns"], "value": columns}
                fix = Fix(f"take {name} from the column {fits[0]}", (operation,))
            message = f"data: {node} reads {kind} from the column {column}, which {what} in {data.type}"
            _add(graph, message, ("data", "columns", name), node=node, fix=fix)


def _check_metrics(graph: Graph) -> None:
    from assembler.metrics import METRICS

    assert graph.document.data is not None
    kinds = {getattr(graph.parts[node], "answers", None) for node in graph.objectives}
    whole = len(graph.order) == len(graph.document.nodes)
    for index, name in enumerate(graph.document.data.metrics):
        keys = ("data", "metrics", index)
        if name not in METRICS:
            _add(graph, f"data.metrics: there is no metric {name[:80]!r}{nearest(name, METRICS)}", keys)
        elif whole and METRICS[name].answers not in kinds:
            _add(graph, f"data.metrics: {name} judges a {METRICS[name].answers}, and no node answers with one", keys)


def _check_stored(graph: Graph, index: int, stage: Stage) -> None:
    """What a node of the stage stores comes from nodes that stand still."""
    for name in stage.train:
        if name not in graph.parts or not graph.parts[name].stores:
            continue
        before = {*graph.ancestors(name)} - {name}
        before |= {adapter for adapter, part in graph.adapters.items() if part.host in before}
        for place, moving in enumerate(stage.train):
            if moving.partition(".")[0] in before:
                message = f"stages.{stage.name}: {name} stores what {moving} gives, which would not stay so"
                more = f"; train {moving} in a stage of its own before"
                _add(graph, message + more, ("stages", index, "train", place), node=moving)


def _check_stages(graph: Graph) -> None:
    document = graph.document
    names = [stage.name for stage in document.stages]
    for index, stage in enumerate(document.stages):
        if names.index(stage.name) != index:
            _add(graph, f"stages: the name {stage.name} is used twice; rename one", ("stages", index, "name"))
        for place, name in enumerate(stage.train):
            keys = ("stages", index, "train", place)
            node, _, piece = name.partition(".")
            if node in graph.parts and piece in graph.parts[node].pieces():
                continue
            if name not in document.nodes and name not in document.adapters:
                pieces = [f"{node}.{piece}" for node, part in graph.parts.items() for piece in part.pieces()]
                near = nearest(name, [*document.nodes, *document.adapters, *pieces])
                _add(graph, f"stages.{stage.name}: there is no node or adapter {name[:80]}{near}", keys)
            elif name in graph.parts and family(graph.parts[name].type) == "input":
                _add(graph, f"stages.{stage.name}: {name} has nothing to train", keys, node=name)
            elif name in graph.parts and graph.parts[name].freeze:
                message = f"stages.{stage.name}: {name} says `freeze: true` and is to be trained"
                operation = {"op": "set", "path": ["nodes", name, "freeze"], "value": False}
                _add(graph, message, keys, node=name, fix=Fix(f"unfreeze {name}", (operation,)))
        _check_stored(graph, index, stage)
        for place, name in enumerate(stage.objectives or ()):
            if name in graph.adapters and graph.adapters[name].gives_loss():
                continue
            if name not in document.nodes:
                near = nearest(name, document.nodes)
                keys = ("stages", index, "objectives", place)
                _add(graph, f"stages.{stage.name}: there is no node {name[:80]}{near}", keys)
            elif name in graph.parts and not graph.parts[name].gives_loss():
                message = f"stages.{stage.name}: {name} ({graph.parts[name].type}) gives no loss"
                more = "; set `pretrain: true` there" if hasattr(graph.parts[name], "pretrain") else "; name a head"
                _add(graph, message + more, ("stages", index, "objectives", place), node=name)
    if document.stages and document.data is None:
        _add(graph, "stages: there is nothing to train on; add `data`", ("stages",))
    whole = len(graph.order) == len(document.nodes)
    if document.stages and whole and not any(part.gives_loss() for part in graph.parts.values()):
        _add(graph, "stages: no node gives a loss; add a backbone or a head", ("stages",))
