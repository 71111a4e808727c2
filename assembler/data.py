"""What a spec learns from, and the ready-made sets of real data, for the command line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import typer

from assembler.commanding import print_json
from assembler.errors import AssemblerError


def list_sets() -> None:
    """Print the ready-made sets, a line each."""
    for key, cls in _sets().items():
        typer.echo(f"{key}: {cls.source}. {cls.licence}")


def fetch_set(name: str) -> None:
    """Bring a ready-made set to this computer and prepare it.

    Raises:
        AssemblerError: there is no such set.
    """
    from assembler.suggest import nearest

    found = _sets()
    if name not in found:
        raise AssemblerError(
            f"there is no ready-made set {name}{nearest(name, found)}; `assembler data fetch` lists them"
        )
    chosen = found[name]()
    chosen.fetch(Path(), lambda what: typer.echo(f"fetching {what}", err=True))
    typer.echo(f"{len(chosen.rows(Path())):,} samples in {chosen.folder}")
    typer.echo(f"licence: {chosen.licence}")


def _sets() -> dict[str, Any]:
    from assembler import registry

    parts: dict[str, Any] = dict(registry.parts())
    return {key.removeprefix("dataset."): cls for key, cls in parts.items() if hasattr(cls, "licence")}


def describe(path: Path, count: int, page: Path, as_json: bool) -> None:
    """Print how many samples a spec learns from and which are held out, its columns and its commonest answers.

    Where `count` is not 0 that many samples follow, and their pictures go to `page`.
    """
    from assembler.batches import split
    from assembler.check import check
    from assembler.preview import preview, print_preview, write_page
    from assembler.spec import read

    graph = check(read(path)).require()
    if graph.dataset is not None:
        graph.dataset.fetch(graph.base, lambda what: typer.echo(f"fetching {what}", err=True))
    learned, held_out = split(graph)
    report: dict[str, Any] = {
        "learned": len(learned),
        "held_out": len(held_out),
        "bad": dict(graph.bad or {}),
        "columns": graph.columns(),
        "answers": _answers(graph.column("answer"), learned),
        "licence": getattr(graph.dataset, "licence", None),
    }
    samples = preview(graph, learned, count) if count else []
    if samples:
        write_page(samples, f"{graph.document.name}: samples as the model sees them", page)
    if as_json:
        print_json({**report, "samples": [sample.as_dict() for sample in samples]})
        return
    _print(report)
    print_preview(samples)
    if samples:
        typer.echo(f"with pictures: {page}")


def _answers(column: str, rows: Any) -> dict[str, Any]:
    """How many different answers there are, and the commonest ones."""
    counted = Counter(str(row[column]) for row in map(rows.plain, range(len(rows))) if column in row)
    return {"different": len(counted), "commonest": dict(counted.most_common(5))}


def _print(report: dict[str, Any]) -> None:
    typer.echo(f"{report['learned']:,} samples to learn from, {report['held_out']:,} held out")
    typer.echo("columns: " + ", ".join(f"{name} ({kind})" for name, kind in report["columns"].items()))
    if report["answers"]["different"]:
        common = ", ".join(f"{text!r} {times:,} x" for text, times in report["answers"]["commonest"].items())
        typer.echo(f"{report['answers']['different']:,} different answers; the commonest: {common}")
    if report["licence"]:
        typer.echo(f"licence: {report['licence']}")
    for index, why in report["bad"].items():
        typer.echo(f"left out, row {index}: {why}")
