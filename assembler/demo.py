"""`make demo`: the main job on real data with real weights, from drawing to served answers.

python -m assembler.demo [--out FOLDER] [--spec SPEC]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from assembler.errors import AssemblerError

ROOT = Path(__file__).resolve().parent.parent
SPEC = ROOT / "exports" / "gallery" / "digits.yaml"
SHOWN = 24
GOAL = 0.9


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when torch and ONNX both reach the goal."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--out", type=Path, default=ROOT / "exports" / "demo", help="folder to work in; made anew")
    options.add_argument("--spec", type=Path, default=SPEC, help="the graph to take through")
    chosen = options.parse_args(arguments)
    try:
        return run(chosen.spec, chosen.out, Console())
    except AssemblerError as error:
        print(error, file=sys.stderr)
        return 1


def run(spec_path: Path, out: Path, console: Console) -> int:
    """Every step of the main job on one spec, told as it goes."""
    graph = _checked(spec_path, console)
    console.rule("2  forecast")
    from assembler.forecast import summary
    from assembler.tables import answered, print_parity, print_summary

    print_summary(summary(graph), console)

    console.rule("3  train")
    from assembler.spec import read
    from assembler.train import train

    if out.exists():
        shutil.rmtree(out)
    started = time.monotonic()
    train(read(spec_path), out / "run", console=console)
    console.print(f"trained in {(time.monotonic() - started) / 60:.1f} minutes")

    console.rule("4  export to ONNX")
    from assembler.batches import split
    from assembler.evaluate import BundleAnswers, TorchAnswers, evaluate
    from assembler.export import export
    from assembler.runs import load_run

    graph, assembly = load_run(out / "run")
    learned, held_out = split(graph)
    given = answered(TorchAnswers(graph, assembly), held_out, "torch answers", console)
    scores = {"torch": evaluate(graph, given, learned, held_out)}
    with console.status("export") as status:
        report = export(graph, assembly, out / "bundle", "fp32", held_out, status.update)
    print_parity(report, _short(out / "bundle"))

    console.rule("5  what it learned, on digits it has never seen")
    given = answered(BundleAnswers(graph, out / "bundle"), held_out, "ONNX answers", console)
    scores["ONNX"] = evaluate(graph, given, learned, held_out)
    _show(graph, held_out, given, out, console)
    for name, score in scores.items():
        console.print(
            f"{name}: exact match {score['exact_match']:.1%} of {score['n']} held-out digits "
            f"(the commonest answer alone: {score['baselines']['exact_match']:.1%})"
        )
    picture = _short(out / "seven.png")
    console.print("\nAsk it yourself:")
    command = f'.venv/bin/assembler ask {_short(out / "bundle")} --image {picture} --prompt "Which digit is this?"'
    console.print(f"  {command}", soft_wrap=True, markup=False)
    return 0 if min(score["exact_match"] for score in scores.values()) >= GOAL else 1


def _checked(spec_path: Path, console: Console) -> Any:
    """The checked graph, with its weights fetched and so with every size known."""
    console.rule("1  check the graph")
    from assembler.fetching import fetched_graph

    with console.status("weights"):
        graph = fetched_graph(spec_path, lambda source: console.print(f"weights of {source}", soft_wrap=True))
    for edge in graph.edges:
        console.print(f"{edge}   {graph.values[edge.source]}", markup=False)
    return graph


def _short(path: Path) -> Path:
    """The path as one would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _show(graph: Any, rows: Sequence[Any], given: Sequence[str], out: Path, console: Console) -> None:
    """A few answered pictures in the terminal, all of a sheet in a file, and one picture to ask about."""
    for row, answer in list(zip(rows, given, strict=True))[:3]:
        console.print(_blocks(row["image"]), markup=False)
        console.print(f"  it says: {answer.strip()}\n", markup=False)
    sheet = out / "answers.png"
    contact_sheet(rows[:SHOWN], given[:SHOWN], sheet)
    console.print(f"{SHOWN} answered pictures: {_short(sheet)}")
    seven = next((row for row in rows if row["label"] == 7), rows[0])
    seven["image"].save(out / "seven.png")


def _blocks(image: Any) -> str:
    """An 8 x 8 picture in shades of block characters, two columns a pixel."""
    shades = " ░▒▓█"
    grey = image.convert("L").resize((8, 8))
    return "\n".join("  " + "".join(shades[grey.getpixel((x, y)) * 4 // 255] * 2 for x in range(8)) for y in range(8))


def contact_sheet(rows: Sequence[Any], given: Sequence[str], path: Path) -> None:
    """Answered pictures in a grid, each over its answer; a wrong answer is red and followed by the right one."""
    from PIL import Image, ImageDraw, ImageFont

    columns, cell, margin = 6, 128, 28
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (columns * (cell + 16) + 16, lines * (cell + margin + 16) + 16), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for index, (row, answer) in enumerate(zip(rows, given, strict=True)):
        x, y = 16 + index % columns * (cell + 16), 16 + index // columns * (cell + margin + 16)
        sheet.paste(row["image"].convert("L").resize((cell, cell), Image.Resampling.NEAREST).convert("RGB"), (x, y))
        right = answer.strip() == row["word"]
        text = answer.strip() if right else f"{answer.strip()[:10]} ({row['word']})"
        draw.text((x + cell // 2, y + cell + 4), text, "black" if right else "#b00020", font, anchor="ma")
    sheet.save(path)


if __name__ == "__main__":
    sys.exit(main())
