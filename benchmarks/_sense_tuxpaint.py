"""Image: the nouns of Tux Paint's captions, beside the nearest learned picture in the same features and logits."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from assembler.compile import compile_graph
from assembler.metrics import METRICS, score
from assembler.runs import graph_of
from assembler.tables import scored as report_of
from benchmarks._frozen import features
from benchmarks._sense import Row, Score, judged, rows_of

ROW = Row("tuxpaint", "image", "at least the nearest neighbour", lambda score, base: score >= base)
SPEC = Path(__file__).parents[1] / "exports" / "gallery" / f"{ROW.spec}.yaml"


def baseline(spec: Path) -> Score:
    """The better of two nearest neighbours, in the logits that the model reads and in the features behind them."""
    return max(neighbours(spec), key=lambda found: found.score)


@cache
def neighbours(spec: Path) -> tuple[Score, ...]:
    """The noun of the learned picture whose features have the largest cosine to the held-out one's."""
    graph, learned, held_out = rows_of(spec)
    nouns = [learned.plain(i)["noun"] for i in range(len(learned))]
    assembly, found = compile_graph(graph), []
    for output, name in (("logits", "logits"), ("pooled", "pooled features")):
        assembly.nodes["eyes"].output = output  # type: ignore[assignment]
        sides = features(graph, "eyes", learned, held_out, assembly=assembly)
        x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in sides)
        given = [nouns[i] for i in (y @ x.T).argmax(1)]
        found.append(judged(f"nearest neighbour in the same {name}", graph, given, learned, held_out))
    return tuple(found)


def named(spec: Path) -> Score:
    """The last word of the likeliest class's name, which learns nothing."""
    from timm.data import ImageNetInfo

    graph, learned, held_out = rows_of(spec)
    (logits,) = features(graph, "eyes", held_out)
    told = ImageNetInfo().index_to_description
    given = [told(int(i)).split(", ")[0].split()[-1].lower() for i in logits.argmax(1)]
    return judged("the likeliest class's last word", graph, given, learned, held_out)


def extra(run: Path, bundle: Path) -> list[Score]:
    """Both neighbours, the class alone, and the held-out pictures by whether their noun was learned or is new."""
    from assembler.batches import split

    learned, _ = split(graph_of(run))
    known = {learned.plain(i)["noun"] for i in range(len(learned))}
    pairs = [(x["answer"], x["expected"]) for x in report_of(run, None, None, quiet=True)["samples"]]
    found = [*neighbours(SPEC), named(SPEC)]
    for name, seen in (("of nouns that were learned", True), ("of nouns that were not", False)):
        given, wanted = zip(*(pair for pair in pairs if (pair[1] in known) == seen), strict=True)
        one = score(METRICS["exact_match"], given, wanted, "")
        found.append(Score(f"{len(wanted)} {name}", one["value"], (one["low"], one["high"])))
    return found
