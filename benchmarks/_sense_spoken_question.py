"""All at once: a spoken question about a picture, whole and with either sense blanked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from assembler.rows import Row as DataRow
from assembler.rows import Rows, Subset
from assembler.samples import Sound
from benchmarks._sense import Row, Score, judged, rows_of, text_node
from components.datasets.fashion_mnist import WORDS
from components.datasets.spoken_question import PLACES, Questions

TIMES = 2
ROW = Row(
    "spoken-question",
    "image + speech",
    f"right at least {TIMES} times as often as one who knows all four garments and hears nothing",
    lambda score, base: score >= TIMES * base,
)


def baseline(spec: Path) -> Score:
    """One of the four garments of each picture, by their true names, drawn without hearing which is asked for."""
    graph, learned, held_out = rows_of(spec)
    draw = np.random.default_rng(0)
    given = [str(draw.choice(shown(held_out, index))) for index in range(len(held_out))]
    return judged("one of the four, unheard", graph, given, learned, held_out)


def shown(rows: Rows, index: int) -> list[str]:
    """The names of the four garments in a row's picture."""
    assert isinstance(rows, Subset) and isinstance(rows.rows, Questions)
    pictures, _, _ = rows.rows.drawn(rows.indices[index])
    return [rows.rows.clothes.plain(picture)["word"] for picture in pictures]


def extra(run: Path, bundle: Path) -> list[Score]:
    """Exact match on the same rows with the picture grey, and with the sound silent.

    Chance is one in ten without the picture and one in four without the sound; neither may be beaten for sure.
    """
    from assembler.batches import split
    from assembler.evaluate import TorchAnswers
    from assembler.runs import load_run
    from assembler.tables import answered

    graph, assembly = load_run(run)
    answers = TorchAnswers(graph, assembly, text_node(graph))
    learned, held_out = split(graph)
    found = []
    for column, blank, chance in (("image", grey, 1 / len(WORDS)), ("audio", silent, 1 / len(PLACES))):
        rows = Blanked(held_out, column, blank)
        name = f"{blank.__name__} {column}: its interval reaches down to chance, {chance:.0%}"
        one = judged(name, graph, answered(answers, rows, name, Console(quiet=True)), learned, held_out)
        found.append(one._replace(met=one.interval[0] <= chance))
    return found


class Blanked(Subset):
    """The same rows with nothing in one column."""

    def __init__(self, rows: Rows, column: str, blank: Callable) -> None:
        super().__init__(rows, range(len(rows)))
        self.column, self.blank = column, blank

    def row(self, index: int) -> DataRow:
        found = super().row(index)
        return {**found, self.column: self.blank(found[self.column])}


def grey(image: Image.Image) -> Image.Image:
    """A picture of the same size that is grey all over."""
    return Image.new(image.mode, image.size, 128)


def silent(sound: Sound) -> Sound:
    """As long a sound of nothing."""
    return Sound(np.zeros_like(sound.samples), sound.rate)
