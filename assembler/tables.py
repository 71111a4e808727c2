"""What the commands show people: tables, bars and the work between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from rich.tree import Tree

from assembler.errors import AssemblerError

LAYER = re.compile(r"((?:.*\.)?layers)\.(\d+)(?=\.|$)")


def size(count: float) -> str:
    """Bytes for people: 1,234,567,890 is 1.15 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:,.2f} GiB"


def print_summary(report: dict[str, Any], console: Console | None = None) -> None:
    """Parameters a node, wires, and the forecast a stage."""
    console = console or Console()
    table = Table("part", title=f"{report['name']}: {report['total']:,} parameters", title_justify="left")
    table.add_column("parameters", justify="right")
    table.add_column("trainable", justify="right")
    for name, row in {**report["nodes"], **report["adapters"]}.items():
        table.add_row(name, f"{row['parameters']:,}", f"{row['trainable']:,}")
    console.print(table)
    wires = Table("wire", "carries")
    for wire, value in report["wires"].items():
        wires.add_row(wire, value.replace("[", r"\["))
    console.print(wires)
    if report["stages"]:
        console.print(_stages(report["stages"]))
    serving = report["serving"]
    weights, token = size(serving["weights_bytes"]), size(serving["cache_bytes_per_token"])
    console.print(f"serving: {weights} of weights, and {token} of cache a token")


def _stages(stages: dict[str, Any]) -> Table:
    table = Table("stage", title="forecast of one step", title_justify="left")
    for title in ("trainable", "peak", "weights", "grad+Adam", "activations", "GFLOP"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in stages.items():
        sizes = [row["memory_bytes"], row["weights_bytes"], row["gradients_bytes"] + row["optimizer_bytes"]]
        cells = map(size, [*sizes, row["activations_bytes"]])
        table.add_row(name, f"{row['trainable']:,}", *cells, f"{row['flops'] / 1e9:,.0f}")
    return table


def sites_of_node(spec: Path, node: str) -> dict[str, dict[str, Any]]:
    """Canonical site -> `module` in the node, its `class` and, where it has one, the shape of its `weight`.

    Raises:
        AssemblerError: the spec has problems, has no such node, or no anatomy fits it.
    """
    from assembler.anatomy import places_of
    from assembler.check import check
    from assembler.compile import compile_graph
    from assembler.suggest import nearest

    graph = check(spec).require()
    assembly = compile_graph(graph, device="meta")
    if node not in assembly.nodes:
        raise AssemblerError(f"{spec}: there is no node {node} with a module{nearest(node, assembly.nodes)}")
    host, found = assembly.nodes[node], {}
    for site, place in places_of(host).items():
        module = host.get_submodule(place.path)
        weight = getattr(module, "weight", None)
        part = "" if place.whole else f" ({place.index + 1} of {place.of})"
        shape = list(weight.shape) if weight is not None else None
        found[site] = {"module": place.path + part, "class": type(module).__name__, "weight": shape}
    return found


def guesses_of_node(spec: Path, node: str) -> tuple[str, ...]:
    """What was taken for what in a node that says `anatomy: guess`; nothing for any other."""
    from assembler.check import check
    from assembler.compile import compile_graph
    from assembler.guess import guessed

    graph = check(spec).require()
    if node not in graph.parts or graph.parts[node].anatomy != "guess":
        return ()
    return guessed(compile_graph(graph, device="meta").nodes[node]).report


def print_sites(node: str, found: dict[str, dict[str, Any]], guesses: Sequence[str] = ()) -> None:
    """The sites as a tree, each with its module and the shape of its weight; layers that are alike are one branch."""
    console = Console()
    tree = Tree(f"[bold]{node}[/]")
    branches: dict[str, Tree] = {"": tree}
    for site, row in folded(found).items():
        parent, _, name = site.rpartition(".")
        while parent not in branches:
            parent = parent.rpartition(".")[0]
        shape = "" if row["weight"] is None else f" {row['weight']}"
        label = name if parent == site.rpartition(".")[0] else site.removeprefix(parent).lstrip(".")
        text = f"{escape(label)}  [dim]{escape(row['module'])} ({row['class']}){escape(shape)}[/]"
        branches[site] = branches[parent].add(text)
    console.print(tree)
    console.print("a pattern takes the layers together: layers.*.attn.{q,v}; `in` and `out` of each are points")
    for line in guesses:
        console.print(f"guessed: {escape(line)}")


def folded(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The sites with the layers of each stack that look like its first under one name, such as `layers.[0-11]`."""
    stacks: dict[str, dict[int, dict[str, Any]]] = {}
    for site, row in found.items():
        if match := LAYER.match(site):
            shape = (row["class"], row["weight"])
            stacks.setdefault(match[1], {}).setdefault(int(match[2]), {})[site[match.end() :]] = shape
    named = {}
    for stack, layers in stacks.items():
        first = 0
        for index in sorted(layers):
            if layers[index] != layers[first]:
                first = index
            same = [i for i in layers if i >= first and layers[i] == layers[first]]
            run = next((i for i in range(first, max(layers) + 2) if i not in same), first)
            name = f"{stack}.{first}" if run - first == 1 else f"{stack}.[{first}-{run - 1}]"
            named[f"{stack}.{index}"] = name if index == first else ""
    result = {}
    for site, row in found.items():
        match = LAYER.match(site)
        if match is None:
            result[site] = row
        elif named[match[0]]:
            result[f"{named[match[0]]}{site[match.end() :]}"] = row
    return result


def scored(run: Path, limit: int | None, bundle: Path | None, quiet: bool, node: str | None = None) -> dict[str, Any]:
    """Score a run or its bundle with a progress bar; `node` answers, or the first that does."""
    from assembler.batches import split
    from assembler.evaluate import BundleAnswers, TorchAnswers, evaluate
    from assembler.runs import graph_of, load_run

    answers: Any
    if bundle:
        graph = graph_of(run)
        answers = BundleAnswers(graph, bundle)
        if node not in (None, answers.node):
            raise AssemblerError(f"{bundle} answers as {answers.node} does; leave --bundle out to score {node}")
    else:
        graph, assembly = load_run(run)
        answers = TorchAnswers(graph, assembly, node)
    learned, held_out = split(graph)
    held_out = held_out[:limit]
    given = answered(answers, held_out, "answers", Console(quiet=quiet))
    return evaluate(graph, given, learned, held_out, answers.node)


def answered(answers: Callable[[Sequence[Any]], list[Any]], rows: Sequence[Any], what: str, console: Console) -> list:
    """The answers to all rows, 32 at a time, under a progress bar called `what`."""
    starts = track(range(0, len(rows), 32), description=what, console=console)
    return [answer for start in starts for answer in answers(rows[start : start + 32])]


def print_scores(report: dict[str, Any]) -> None:
    """The scores, and the first answers beside what was expected."""
    console = Console()
    table = Table("metric", title=f"{report['node']} on {report['n']:,} held-out rows", title_justify="left")
    for title in ("value", "95 % interval", "baseline"):
        table.add_column(title, justify="right")
    for name, (low, high) in report["intervals"].items():
        table.add_row(name, f"{report[name]:.4f}", f"{low:.4f} to {high:.4f}", f"{report['baselines'][name]:.4f}")
    console.print(table)
    if not report["samples"]:
        return
    samples = Table("answer", "expected")
    for row in report["samples"][:8]:
        samples.add_row(str(row["answer"]), str(row["expected"]))
    console.print(samples)


def exported(
    run: Path, out: Path, precision: str, max_kl: float | None, quiet: bool, switch: Sequence[str] = ()
) -> dict[str, Any]:
    """Export a run, saying what is being written."""
    from assembler.batches import split
    from assembler.bundle.precisions import read_precisions
    from assembler.export import export
    from assembler.exportable import language_model
    from assembler.runs import load_run

    console = Console(quiet=quiet)
    graph, assembly = load_run(run)
    node = language_model(graph) or ""
    precisions = read_precisions(precision, node, graph.slot_tokens(node) if node else ())
    learned, held_out = split(graph)
    with console.status("export") as status:
        return export(graph, assembly, out, precisions, held_out or learned, status.update, max_kl, switch)


def print_parity(report: dict[str, Any], out: Path) -> None:
    """The parity report, and the command to type next."""
    console = Console()
    table = Table("graph", title=f"{out}: {report['precision']}, {size(report['bytes'])}", title_justify="left")
    table.add_column("largest difference", justify="right")
    table.add_column("relative", justify="right")
    for row in report["graphs"]:
        table.add_row(row["graph"], f"{row['max_abs']:.1e}", f"{row['relative']:.1e}")
    console.print(table)
    moved = report["drift"]
    console.print(
        f"drift on {moved['tokens']} answer tokens: KL {moved['kl']:.1e} nats (at most {moved['bound']:g}), likeliest "
        f"token the same {moved['top1']:.1%}, perplexity {moved['perplexity']['torch']:.3f} -> "
        f"{moved['perplexity']['bundle']:.3f}"
    )
    console.print(
        f"loads in {report['load_seconds']:.1f} s; here and now {report['speed']['prefill']:,.0f} tokens/s of prompt, "
        f"{report['speed']['decode']:,.0f} of answer"
    )
    console.print(f"greedy answers equal to torch's on {report['greedy']:.0%} of {report['samples']} held-out samples")
    if report["note"]:
        console.print(report["note"])
    console.print(f"next: assembler ask {out} {_asked(out)}", markup=False)


def _asked(bundle: Path) -> str:
    """What `assembler ask` is to be given for a bundle."""
    from assembler.bundle.manifest import read_manifest

    manifest = read_manifest(bundle)
    kinds = [item.processor.kind for item in manifest.inputs.values()]
    files = [f"--{kind} FILE" for kind in kinds if kind != "text"]
    texts = kinds.count("text") + sum(part.column is not None for part in manifest.prompt)
    return " ".join([*files, *["--prompt TEXT"] * texts])
