"""Metrics: how good answers are, how sure that is, and what answering without looking would have got.

A metric is told by statistics of each sample that are combined over any choice of samples, so that one bootstrap serves
all: 95 % of the values over samples drawn again with replacement, under a fixed seed, lie in the interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from assembler.part import Answers

DRAWS, SEED = 1000, 0

Statistics = Callable[[Sequence[Any], Sequence[Any]], "np.ndarray"]
"""(given, wanted) -> a row of numbers a sample, [n, k]."""


@dataclass(frozen=True)
class Metric:
    """`combined(statistics(given, wanted))` is the score of answers of the kind `answers`.

    `chance`, where there is one, says what guessing gets, of what is wanted; elsewhere the baseline is an answer.
    """

    answers: Answers
    statistics: Statistics
    combined: Callable[[np.ndarray], float]
    chance: Callable[[Sequence[Any]], float] | None = None


def score(metric: Metric, given: Sequence[Any], wanted: Sequence[Any], usual: Any) -> dict[str, float]:
    """`value`, its interval from `low` to `high`, and the `baseline` of always answering `usual`, or of chance."""
    import numpy as np

    told = metric.statistics(given, wanted)
    draw = np.random.default_rng(SEED)
    values = [metric.combined(told[draw.integers(0, len(told), len(told))]) for _ in range(DRAWS)]
    low, high = np.quantile(values, [0.025, 0.975])
    if metric.chance is not None:
        baseline = metric.chance(wanted)
    else:
        baseline = metric.combined(metric.statistics([usual] * len(wanted), wanted))
    return {"value": metric.combined(told), "low": float(low), "high": float(high), "baseline": float(baseline)}


def usual_answer(answers: Answers, learned: Sequence[Any]) -> Any:
    """What to answer without looking: the commonest text or class, the mean score; nothing for a pair."""
    if answers == "score":
        return sum(learned) / len(learned)
    return Counter(learned).most_common(1)[0][0] if answers != "pair" else None


def plain(text: str) -> str:
    """Text without space at its ends and without regard to case."""
    return text.strip().casefold()


def _same_text(given: Sequence[Any], wanted: Sequence[Any]) -> np.ndarray:
    import numpy as np

    return np.array([[float(plain(g) == plain(w))] for g, w in zip(given, wanted, strict=True)])


def _same(given: Sequence[Any], wanted: Sequence[Any]) -> np.ndarray:
    import numpy as np

    return np.array([[float(g == w)] for g, w in zip(given, wanted, strict=True)])


def _mean(told: np.ndarray) -> float:
    return float(told.mean())


def _classes(given: Sequence[Any], wanted: Sequence[Any]) -> np.ndarray:
    """The place of both in the list of all classes."""
    import numpy as np

    return np.unique([list(given), list(wanted)], return_inverse=True)[1].reshape(2, -1).T


def _macro_f1(told: np.ndarray) -> float:
    """The mean over the classes that are given or wanted of 2 * hits / (times given + times wanted)."""
    import numpy as np

    size = int(told.max()) + 1
    hits = np.bincount(told[told[:, 0] == told[:, 1], 0], minlength=size)
    times = np.bincount(told.ravel(), minlength=size)
    return float((2 * hits[times > 0] / times[times > 0]).mean())


def _edits(characters: bool) -> Statistics:
    """Edits to make the given text the wanted one, and the length of the wanted one, in words or characters.

    Case, punctuation and repeated spaces do not count.
    """

    def statistics(given: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
        import jiwer
        import numpy as np

        cut = jiwer.ReduceToListOfListOfChars() if characters else jiwer.ReduceToListOfListOfWords()
        steps = [jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.RemoveMultipleSpaces(), jiwer.Strip(), cut]
        transform, process = jiwer.Compose(steps), jiwer.process_characters if characters else jiwer.process_words
        rows = []
        for g, w in zip(given, wanted, strict=True):
            out = process(w, g, reference_transform=transform, hypothesis_transform=transform)
            edits = out.substitutions + out.deletions + out.insertions
            rows.append([edits, out.hits + out.substitutions + out.deletions])
        return np.array(rows, dtype=float)

    return statistics


def _rate(told: np.ndarray) -> float:
    edits, length = told.sum(0)
    return float(edits / max(length, 1))


def _sacrebleu(name: str) -> tuple[Statistics, Callable[[np.ndarray], float]]:
    """sacrebleu's statistics of each sentence, and its score of their sum."""

    def metric() -> Any:
        import sacrebleu

        return sacrebleu.CHRF() if name == "chrf" else sacrebleu.BLEU()

    def statistics(given: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
        import numpy as np

        return np.array(metric()._extract_corpus_statistics(list(given), [list(wanted)]))

    def combined(told: np.ndarray) -> float:
        return float(metric()._compute_score_from_stats(told.sum(0).tolist()).score)

    return statistics, combined


def _numbers(given: Sequence[float], wanted: Sequence[float]) -> np.ndarray:
    import numpy as np

    return np.stack([np.asarray(given, dtype=float), np.asarray(wanted, dtype=float)], 1)


def _pearson(told: np.ndarray) -> float:
    """Pearson's correlation; zero where either side is constant, since it then follows nothing."""
    from scipy.stats import pearsonr

    given, wanted = told.T
    if len(told) < 2 or given.min() == given.max() or wanted.min() == wanted.max():
        return 0.0
    return float(pearsonr(given, wanted).statistic)


def _mean_error(told: np.ndarray) -> float:
    return float(abs(told[:, 0] - told[:, 1]).mean())


def _found(k: int) -> Statistics:
    """Whether the other half of each pair is among the k nearest, from the first to the second and back.

    Given are the two embeddings of a pair and wanted their names; halves of one name are one, and of equal likeness the
    wrong ones come first.
    """

    def statistics(given: Sequence[Any], wanted: Sequence[Any]) -> np.ndarray:
        import numpy as np

        x, hits = np.asarray(given, dtype=float), []
        for here, there in ((0, 1), (1, 0)):
            _, first, own = np.unique([pair[there] for pair in wanted], return_index=True, return_inverse=True)
            likeness = x[:, here] @ x[first, there].T  # [n, different names]
            right = likeness[np.arange(len(x)), own]
            before = (likeness >= right[:, None]).sum(1) - 1
            hits.append(before < k)
        return np.stack(hits, 1).astype(float)

    return statistics


def _chance(k: int) -> Callable[[Sequence[Any]], float]:
    def chance(wanted: Sequence[Any]) -> float:
        sizes = [len({pair[side] for pair in wanted}) for side in (0, 1)]
        return sum(min(1.0, k / size) for size in sizes) / 2

    return chance


METRICS: dict[str, Metric] = {
    "exact_match": Metric("text", _same_text, _mean),
    "wer": Metric("text", _edits(characters=False), _rate),
    "cer": Metric("text", _edits(characters=True), _rate),
    "bleu": Metric("text", *_sacrebleu("bleu")),
    "chrf": Metric("text", *_sacrebleu("chrf")),
    "accuracy": Metric("label", _same, _mean),
    "macro_f1": Metric("label", _classes, _macro_f1),
    "pearson": Metric("score", _numbers, _pearson),
    "mae": Metric("score", _numbers, _mean_error),
    **{f"recall@{k}": Metric("pair", _found(k), _mean, _chance(k)) for k in (1, 5, 10)},
}
"""By the names they have in a spec's `data.metrics`."""

DEFAULTS: dict[Answers, tuple[str, ...]] = {
    "text": ("exact_match",),
    "label": ("accuracy", "macro_f1"),
    "score": ("pearson", "mae"),
    "pair": ("recall@1", "recall@5"),
}
