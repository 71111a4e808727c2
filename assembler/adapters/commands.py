"""`assembler adapters`: list, show, extract, prepare, merge and diff adapters that lie in files, and `moved`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from assembler.commanding import command_on, print_json
from assembler.errors import AssemblerError

app = typer.Typer(no_args_is_help=True, help="Adapters in files: list, show, extract, prepare, merge, diff, moved.")
command = command_on(app)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of an adapter.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Out = Annotated[Path, typer.Option("--out", help="Folder to write, new.", show_default=False)]


@command("assembler adapters list exports/adapters")
def list_(
    place: Annotated[Path, typer.Argument(metavar="PLACE", help="A folder of adapters, or a run.", show_default=False)],
    as_json: Json = False,
) -> None:
    """List the adapters below a folder, or those that a run trains."""
    from assembler.adapters.offline import listed

    rows = listed(place)
    if as_json:
        print_json(rows)
    else:
        _table(rows)


@command("assembler adapters show exports/adapters/tune")
def show(folder: Folder, as_json: Json = False) -> None:
    """Show an adapter's method, options and tensors."""
    from assembler.adapters.offline import shown

    report = shown(folder)
    if as_json:
        print_json(report)
        return
    for key in ("method", "parameters", "host"):
        typer.echo(f"{key}: {report[key]}")
    for key, item in report["options"].items():
        typer.echo(f"  {key}: {item}")
    _table(report["tensors"])


@command("assembler adapters extract exports/runs/digits tune --out exports/adapters/tune")
def extract(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="An adapter of its spec.", show_default=False)],
    out: Out,
) -> None:
    """Write what a run taught an adapter as a file; PEFT reads it where PEFT has the method."""
    from assembler.adapters.offline import extracted

    extracted(run, name, out)
    typer.echo(f"next: assembler adapters show {out}")


@command("assembler adapters prepare exports/gallery/kore.yaml tune --rows 256 --out exports/adapters/tune")
def prepare(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A spec with the adapter.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="An adapter of it.", show_default=False)],
    out: Out,
    rows: Annotated[int, typer.Option(min=1, help="How many rows of its data to look at.")] = 256,
) -> None:
    """Find what of an adapter does not learn (masks, null spaces, bases) on a spec's data, and write it as a file."""
    from assembler.adapters.prepare import prepare as prepared
    from assembler.spec import read

    prepared(read(spec), name, out, rows)
    typer.echo(f"next: `weights: file:{out}` in the adapter of the spec to train")


@command(
    "assembler adapters merge exports/adapters/one exports/adapters/two --weights 0.7,0.3 --out exports/adapters/both"
)
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Adapters of one method and host.")],
    out: Out,
    weights: Annotated[str, typer.Option(help="A weight for each, such as 0.7,0.3; equal where left out.")] = "",
) -> None:
    """Write the weighted mean of several adapters' parameters as one adapter; for LoRAs, of the changes they make."""
    from assembler.adapters.offline import merged

    merged(folders, _numbers(weights, len(folders)), out)
    typer.echo(f"next: assembler adapters show {out}")


@command("assembler adapters diff exports/adapters/one exports/adapters/two")
def diff(first: Folder, second: Folder, as_json: Json = False) -> None:
    """Compare two adapters: options, and how far each tensor is from its twin. Exit code 1 if they differ."""
    from assembler.adapters.offline import difference

    report = difference(first, second)
    if as_json:
        print_json(report)
    else:
        for key, (one, two) in report["options"].items():
            typer.echo(f"{key}: {one} -> {two}")
        for key in ("only_first", "only_second"):
            for name in report[key]:
                typer.echo(f"{key.replace('_', ' in the ')}: {name}")
        _table(report["tensors"])
        typer.echo("the same" if report["same"] else "they differ")
    raise typer.Exit(0 if report["same"] else 1)


@command("assembler adapters moved exports/runs/fsa eyes --rows 256")
def moved(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node of its spec.", show_default=False)],
    rows: Annotated[int, typer.Option(min=1, help="How many held-out rows to look at.")] = 256,
    as_json: Json = False,
) -> None:
    """Tell how far a run has moved a node's embeddings from where they began: mean cosine distance, without labels."""
    from assembler.adapters.offline import moved as distance

    report = distance(run, node, rows)
    if as_json:
        print_json(report)
    else:
        typer.echo("{node}: {distance:.4f} on {rows} rows, at most {most:.4f}".format(**report))


def _numbers(text: str, count: int) -> list[float]:
    if not text:
        return [1 / count] * count
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise AssemblerError(f"--weights {text}: write numbers, such as 0.7,0.3") from error
    if len(found) != count:
        raise AssemblerError(f"--weights {text}: there are {count} adapters, so give {count} numbers")
    return found


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(escape(f"{item:.3g}" if isinstance(item, float) else str(item)) for item in row.values()))
    Console().print(table)
