"""What the commands show people: tables, bars and the work between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from assembler.bundle.manifest import Precision


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
    from assembler.errors import AssemblerError
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


def print_sites(found: dict[str, dict[str, Any]]) -> None:
    """The sites as a table; the layers that look like the first are left to its row."""
    table = Table("site", "module", "class", "weight")
    for site, row in found.items():
        if not site.startswith("layers.") or site.startswith("layers.0"):
            table.add_row(site, row["module"], row["class"], str(row["weight"] or "").replace("[", r"\["))
    console = Console()
    console.print(table)
    layers = {site.split(".")[1] for site in found if site.startswith("layers.")}
    if len(layers) > 1:
        console.print(f"and the same in layers 1 to {len(layers) - 1}; a pattern takes them all: layers.*.attn.q")


def scored(run: Path, limit: int | None, bundle: Path | None, quiet: bool) -> dict[str, Any]:
    """Score a run or its bundle with a progress bar."""
    from assembler.batches import split
    from assembler.evaluate import BundleAnswers, TorchAnswers, evaluate
    from assembler.runs import graph_of, load_run

    answers: Any
    if bundle:
        graph = graph_of(run)
        answers = BundleAnswers(graph, bundle)
    else:
        graph, assembly = load_run(run)
        answers = TorchAnswers(graph, assembly)
    learned, held_out = split(graph)
    held_out = held_out[:limit]
    return evaluate(graph, answered(answers, held_out, "answers", Console(quiet=quiet)), learned, held_out)


def answered(answers: Callable[[Sequence[Any]], list[Any]], rows: Sequence[Any], what: str, console: Console) -> list:
    """The answers to all rows, 32 at a time, under a progress bar called `what`."""
    starts = track(range(0, len(rows), 32), description=what, console=console)
    return [answer for start in starts for answer in answers(rows[start : start + 32])]


def print_scores(report: dict[str, Any]) -> None:
    """The scores, and the first answers beside what was expected."""
    console = Console()
    table = Table("metric")
    table.add_column("value", justify="right")
    for key, value in report.items():
        if isinstance(value, int | float):
            table.add_row(key, f"{value:.4f}" if isinstance(value, float) else str(value))
    console.print(table)
    samples = Table("answer", "expected")
    for row in report["samples"][:8]:
        samples.add_row(str(row["answer"]), str(row["expected"]))
    console.print(samples)


def exported(run: Path, out: Path, precision: Precision, max_kl: float | None, quiet: bool) -> dict[str, Any]:
    """Export a run, saying what is being written."""
    from assembler.batches import split
    from assembler.export import export
    from assembler.runs import load_run

    console = Console(quiet=quiet)
    graph, assembly = load_run(run)
    learned, held_out = split(graph)
    with console.status("export") as status:
        return export(graph, assembly, out, precision, held_out or learned, status.update, max_kl)


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
    console.print(f"greedy answers equal to torch's on {report['greedy']:.0%} of {report['samples']} held-out samples")
    console.print(f"next: assembler ask {out} --image FILE --prompt TEXT")
