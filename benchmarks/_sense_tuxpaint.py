"""Image: the nouns of Tux Paint's captions, beside the nearest learned picture in the same features and logits.

One fold is the row's own run. As its 107 pictures are too few to tell two models apart, the four other folds are
trained too, so that every picture is held out once, and the answers to all of them are judged together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console

from assembler.batches import split
from assembler.compile import compile_graph
from assembler.fetching import fetched_graph
from assembler.metrics import METRICS, score
from assembler.spec import Spec, override, read
from assembler.tables import scored as report_of
from benchmarks._frozen import features
from benchmarks._sense import Row, Score, judged, rows_of, trained

ROW = Row("tuxpaint", "image")
SPEC = Path(__file__).parents[1] / "exports" / "gallery" / f"{ROW.spec}.yaml"
FOLDS = 5
KEYS = {"logits": "logits", "pooled": "pooled features"}

Answers = list[tuple[str, str]]
"""Answers to held-out pictures, each with what is right."""


def spec_of(fold: int) -> Spec:
    """The spec with another fifth of the pictures held out."""
    return override(read(SPEC), f"data.fold={fold}")


@cache
def sides(fold: int) -> tuple[list[int], list[int]]:
    """The numbers of the pictures to learn from, and of those held out."""
    learned, held_out = split(fetched_graph(spec_of(fold)))
    return list(learned.indices), list(held_out.indices)  # type: ignore[attr-defined]


@cache
def pictures() -> tuple[dict[str, np.ndarray], list[str], np.ndarray]:
    """Of every picture the features of length 1 by their kind, the noun, and the class that is likeliest."""
    graph, learned, _ = rows_of(SPEC)
    rows = learned.rows  # type: ignore[attr-defined]
    assembly, found = compile_graph(graph), {}
    for output in KEYS:
        assembly.nodes["eyes"].output = output  # type: ignore[assignment]
        (found[output],) = features(graph, "eyes", rows, assembly=assembly)
    unit = {key: x / np.linalg.norm(x, axis=1, keepdims=True) for key, x in found.items()}
    return unit, [rows.plain(i)["noun"] for i in range(len(rows))], found["logits"].argmax(1)


@cache
def neighbours(fold: int, key: str) -> Answers:
    """The noun of the learned picture whose features have the largest cosine to the held-out one's."""
    (learned, held_out), (unit, nouns, _) = sides(fold), pictures()
    nearest = (unit[key][held_out] @ unit[key][learned].T).argmax(1)
    return [(nouns[learned[i]], nouns[n]) for i, n in zip(nearest, held_out, strict=True)]


def classes(fold: int) -> Answers:
    """The last word of the likeliest class's name, which learns nothing."""
    from timm.data import ImageNetInfo

    (_, held_out), (_, nouns, likeliest) = sides(fold), pictures()
    told = ImageNetInfo().index_to_description
    return [(told(int(likeliest[n])).split(", ")[0].split()[-1].lower(), nouns[n]) for n in held_out]


def baseline(spec: Path) -> Score:
    """The better of two nearest neighbours, in the logits that the model reads and in the features behind them."""
    graph, learned, held_out = rows_of(spec)
    found = [
        judged(f"nearest neighbour in the same {name}", graph, [x for x, _ in neighbours(0, key)], learned, held_out)
        for key, name in KEYS.items()
    ]
    return max(found, key=lambda one: one.score)


def answers(run: Path) -> Answers:
    """What a run answers to the pictures that it has not seen."""
    return [(x["answer"], x["expected"]) for x in report_of(run, None, None, quiet=True)["samples"]]


def others() -> Iterator[tuple[str, str]]:
    """What a run of each other fold answers to the pictures that it has not seen."""
    say = Console(stderr=True)
    for fold in range(1, FOLDS):
        with tempfile.TemporaryDirectory(prefix="fold-") as folder:
            run = Path(folder) / "run"
            trained(spec_of(fold), run, say)
            yield from answers(run)


def exact(name: str, found: Answers, met: bool | None = None) -> Score:
    """The share of answers that are right."""
    one = score(METRICS["exact_match"], [given for given, _ in found], [wanted for _, wanted in found], "")
    return Score(name, one["value"], (one["low"], one["high"]), met)


def extra(run: Path, bundle: Path) -> list[Score]:
    """Held-out pictures by whether their noun was learned; all five folds together, which is what is asked for."""
    known, mine = {pictures()[1][i] for i in sides(0)[0]}, answers(run)
    seen = [pair for pair in mine if pair[1] in known]
    new = [pair for pair in mine if pair[1] not in known]
    whole = [*mine, *others()]
    near = [
        exact(f"nearest neighbour in the same {name}", [x for f in range(FOLDS) for x in neighbours(f, key)])
        for key, name in KEYS.items()
    ]
    alone = exact("the likeliest class's last word", [pair for fold in range(FOLDS) for pair in classes(fold)])
    model = exact(
        f"all {len(whole)} pictures, each held out in one of {FOLDS} folds: at least the nearest neighbour", whole
    )
    return [
        exact(f"{len(seen)} of nouns that were learned", seen),
        exact(f"{len(new)} of nouns that were not", new),
        model._replace(met=model.score >= max(one.score for one in near)),
        *(one._replace(name=f"the same {len(whole)}: {one.name}") for one in [*near, alone]),
    ]
