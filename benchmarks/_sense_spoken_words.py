"""Speech: recorded words, beside Whisper's own decoder; and how much faster an epoch is than the first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from assembler.metrics import METRICS, score
from assembler.rows import Rows
from assembler.runs import Run, graph_of, lines_of
from assembler.tables import scored as report_of
from assembler.weights import fetch, parse_source
from benchmarks._sense import Row, Score, judged, rows_of
from components.datasets.asterisk import ONES, ORDINAL_TENS, ORDINALS, TENS
from components.encoders._whisper_decoder import WholeWhisper

ROW = Row("spoken-words", "speech", "WER at most that of Whisper's decoder", lambda score, base: score <= base)
FASTER = 5.0
BATCH, DRAWS = 8, 1000


def baseline(spec: Path) -> Score:
    """What Whisper's decoder writes down, greedily, with numerals spelled out as they are in the transcripts."""
    graph, learned, held_out = rows_of(spec)
    ears: Any = graph.parts["ears"]
    given = heard(WholeWhisper(fetch(parse_source(ears.weights), graph.base)), held_out)
    return judged("Whisper's decoder, numerals spelled out", graph, given, learned, held_out)


def heard(whole: WholeWhisper, rows: Rows) -> list[str]:
    """What the whole model hears in every row."""
    sounds = [row["audio"] for row in rows]
    texts = [text for i in range(0, len(sounds), BATCH) for text in whole.transcribe(sounds[i : i + BATCH])]
    return [spelled(text) for text in texts]


def spelled(text: str) -> str:
    """The text with numerals up to 1000 that are one word as that word.

    >>> spelled("14, 70th and 100.")
    'fourteen, seventieth and hundred.'
    """
    numbers = list(map(str, [*range(21), *range(30, 100, 10), 100, 1000]))
    cardinals = dict(zip(numbers, [*ONES, *TENS[1:], "hundred", "thousand"], strict=True))
    ordinals = dict(zip(numbers[1:], [*ORDINALS, *ORDINAL_TENS[1:], "hundredth", "thousandth"], strict=True))

    def word(found: re.Match[str]) -> str:
        return (ordinals if found[2] else cardinals).get(found[1], found[0])

    return re.sub(r"\b(\d+)(st|nd|rd|th)?\b", word, text)


def extra(run: Path, bundle: Path) -> list[Score]:
    """Exact match; of the first epoch's steps, whose frozen features are computed, the time over the second's, which
    reads them; and the held-out recordings parted by whether another person's of the same words was learned."""
    from assembler.batches import split

    graph = graph_of(run)
    learned, _ = split(graph)
    stage = graph.document.stages[0]
    epoch = -(-len(learned) // stage.batch)
    times = [line["time"] for line in lines_of(Run(run).metrics_path) if line["stage"] == stage.name]
    found = [faster(np.diff(times[: 2 * epoch]), epoch - 1)]
    samples = report_of(run, None, None, quiet=True)["samples"]
    known = {
        learned.plain(i)["text"] for i in range(len(learned)) if not learned.plain(i)["speaker"].startswith("synthetic")
    }
    for name, seen in (
        ("whose words a person said among the learned", True),
        ("whose words only synthetic voices said", False),
    ):
        pairs = [(x["answer"], x["expected"]) for x in samples if (x["expected"] in known) == seen]
        one = score(METRICS["wer"], *zip(*pairs, strict=True), "")
        found.append(Score(f"WER of {len(pairs)} {name}", one["value"], (one["low"], one["high"])))
    whole = score(METRICS["exact_match"], *zip(*((x["answer"], x["expected"]) for x in samples), strict=True), "")
    return [Score("exact match", whole["value"], (whole["low"], whole["high"])), *found]


def faster(steps: np.ndarray, first: int) -> Score:
    """How many times as long the `first` steps take as the others, on the mean."""
    draw = np.random.default_rng(0)
    one, two = steps[:first], steps[first:]
    ratios = [draw.choice(one, len(one)).mean() / draw.choice(two, len(two)).mean() for _ in range(DRAWS)]
    low, high = np.quantile(ratios, [0.025, 0.975])
    ratio = float(one.mean() / two.mean())
    name = f"a step of the first epoch over one of the second, at least {FASTER:g}"
    return Score(name, ratio, (float(low), float(high)), met=ratio >= FASTER)
