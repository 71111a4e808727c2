"""Image: the nouns of Tux Paint's captions, beside the nearest learned picture in the same features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from assembler.metrics import METRICS, score
from assembler.runs import graph_of
from assembler.tables import scored as report_of
from benchmarks._frozen import features
from benchmarks._sense import Row, Score, judged, rows_of

ROW = Row("tuxpaint", "image", "at least the nearest neighbour", lambda score, base: score >= base)


def baseline(spec: Path) -> Score:
    """The noun of the learned picture whose features have the largest cosine to the held-out one's."""
    graph, learned, held_out = rows_of(spec)
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in features(graph, "eyes", learned, held_out))
    nouns = [learned.plain(i)["noun"] for i in range(len(learned))]
    given = [nouns[i] for i in (y @ x.T).argmax(1)]
    return judged("nearest neighbour in the same features", graph, given, learned, held_out)


def extra(run: Path, bundle: Path) -> list[Score]:
    """The held-out pictures parted by whether their noun was learned, from other pictures, or is new."""
    from assembler.batches import split

    learned, _ = split(graph_of(run))
    known = {learned.plain(i)["noun"] for i in range(len(learned))}
    pairs = [(x["answer"], x["expected"]) for x in report_of(run, None, None, quiet=True)["samples"]]
    found = []
    for name, seen in (("of nouns that were learned", True), ("of nouns that were not", False)):
        given, wanted = zip(*(pair for pair in pairs if (pair[1] in known) == seen), strict=True)
        one = score(METRICS["exact_match"], given, wanted, "")
        found.append(Score(f"{len(wanted)} {name}", one["value"], (one["low"], one["high"])))
    return found
