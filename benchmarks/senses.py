"""Each sense's gallery spec, trained from nothing, scored on held-out data in torch and in ONNX, beside its baseline.

python -m benchmarks.senses [--row NAME ...] [--into DIR] [--run DIR] [--json]

Without `--into` runs and bundles are made in a temporary folder; `--run` takes one row's run that is there already.
Exit code 1: a row misses what is asked of it. What a row is: `benchmarks/_sense.py`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from assembler.errors import AssemblerError
from assembler.runs import graph_of
from assembler.spec import read
from benchmarks._sense import MINUTES, Row, Score, minutes_of, scored, text_node, trained

GALLERY = Path(__file__).parents[1] / "exports" / "gallery"
PREFIX = "_sense_"


def names() -> list[str]:
    """The rows there are."""
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def measure(name: str, folder: Path, run: Path | None, say: Console) -> dict[str, Any]:
    """Everything about one row: its run and bundle are made in `folder`, unless the run is given."""
    from assembler.tables import exported
    from assembler.tables import scored as report_of

    module = importlib.import_module(f"benchmarks.{PREFIX}{name}")
    row: Row = module.ROW
    spec = GALLERY / f"{row.spec}.yaml"
    if run is None:
        run = folder / name / "run"
        trained(read(spec), run, say)
    say.print(f"{name}: baseline")
    base: Score = module.baseline(spec)
    say.print(f"{name}: held-out rows, torch")
    node = text_node(graph_of(run))
    report = report_of(run, None, None, quiet=True, node=node)
    say.print(f"{name}: export")
    bundle = folder / name / "bundle"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    parity = exported(run, bundle, "fp32", None, quiet=True)
    say.print(f"{name}: held-out rows, ONNX")
    served = scored("onnx", report_of(run, None, bundle, quiet=True, node=node))
    more: list[Score] = module.extra(run, bundle) if hasattr(module, "extra") else []
    model, minutes = scored("model", report), minutes_of(run)
    asked = {f"trained within {MINUTES:g} minutes": minutes <= MINUTES}
    if row.met is not None:
        asked[row.asked] = row.met(model.score, base.score)
    asked |= {score.name: score.met for score in more if score.met is not None}
    return {
        "row": name,
        "sense": row.sense,
        "spec": f"exports/gallery/{row.spec}.yaml",
        "metric": report["metric"],
        "held_out": report["n"],
        "usual": report["baselines"][report["metric"]],
        "model": model._asdict(),
        "onnx": served._asdict(),
        "baseline": base._asdict(),
        "extra": [score._asdict() for score in more],
        "parity": {
            "relative": max(graph["relative"] for graph in parity["graphs"]),
            "greedy": parity["greedy"],
            "samples": parity["samples"],
        },
        "minutes": minutes,
        "asked": asked,
        "met": all(asked.values()),
    }


def figure(score: dict[str, Any]) -> str:
    """`0.912 (0.880 to 0.941)`."""
    low, high = score["interval"]
    return f"{score['score']:.3f} ({low:.3f} to {high:.3f})"


def table(found: Sequence[dict[str, Any]]) -> Table:
    """One line a row, and one for each further figure of it."""
    made = Table("row", "held out, metric", title="senses, 95 % bootstrap intervals", title_justify="left")
    for title in ("model", "through ONNX", "baseline", "commonest", "minutes", "asked"):
        made.add_column(title)
    for one in found:
        base = f"{figure(one['baseline'])}\n{one['baseline']['name']}"
        asked = "\n".join(f"{'met' if ok else 'MISSED'}: {what}" for what, ok in one["asked"].items())
        parity = one["parity"]
        onnx = f"{figure(one['onnx'])}\nlargest difference {parity['relative']:.0e}"
        cells = [figure(one["model"]), onnx, base, f"{one['usual']:.3f}", f"{one['minutes']:.1f}", asked]
        made.add_row(f"{one['row']} ({one['sense']})", f"{one['held_out']:,}, {one['metric']}", *cells)
        for extra in one["extra"]:
            made.add_row("", extra["name"], figure(extra))
    return made


def main(arguments: Sequence[str]) -> int:
    """Measure the chosen rows, all by default, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.senses", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--row", action="append", choices=names(), help="a row; all by default")
    parser.add_argument("--into", type=Path, help="folder that keeps the runs and bundles; it must be new")
    parser.add_argument("--run", type=Path, help="a trained run of the one --row")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    chosen = parser.parse_args(arguments)
    if chosen.run and len(chosen.row or ()) != 1:
        parser.error("--run is of one row; name it with --row")
    if chosen.into and chosen.into.exists():
        parser.error(f"{chosen.into} exists already; choose another folder")
    say, found = Console(stderr=True), []
    with tempfile.TemporaryDirectory(prefix="senses-") as temporary:
        for name in chosen.row or names():
            try:
                found.append(measure(name, chosen.into or Path(temporary), chosen.run, say))
            except AssemblerError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
    if chosen.json:
        print(json.dumps(found, indent=2))
    else:
        Console(width=200 if not sys.stdout.isatty() else None).print(table(found))
    return 0 if all(one["met"] for one in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
