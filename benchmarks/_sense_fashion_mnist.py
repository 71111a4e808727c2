"""Image: clothes of Fashion-MNIST, beside a linear probe on the same features."""

from __future__ import annotations

from pathlib import Path

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks._frozen import features
from benchmarks._sense import Row, Score, judged, rows_of

ASKED = 0.8
ROW = Row("fashion-mnist", "image", f"exact match at least {ASKED:g}", lambda score, base: score >= ASKED)


def baseline(spec: Path) -> Score:
    """Logistic regression on what `eyes` gives, each feature brought to mean 0 and deviation 1."""
    graph, learned, held_out = rows_of(spec)
    x, y = features(graph, "eyes", learned, held_out)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    probe.fit(x, [learned.plain(i)["word"] for i in range(len(learned))])
    return judged("linear probe on the same features", graph, probe.predict(y).tolist(), learned, held_out)
