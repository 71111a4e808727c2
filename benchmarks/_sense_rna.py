"""Blood cells named in words, against a logistic regression of the same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from assembler.evaluate import expected_columns
from assembler.rows import Rows
from benchmarks._sense import Row, Score, judged, rows_of, text_node

SHARE = 0.85
ROW = Row(
    spec="pbmc68k",
    sense="RNA",
    asked=f"named right at least {SHARE:.0%} as often as by logistic regression",
    met=lambda score, base: score >= SHARE * base,
)


def baseline(spec: Path) -> Score:
    """Logistic regression on every gene of the data, standardised; how much it is held back is chosen by 5-fold
    cross-validation among the rows to learn from.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    graph, learned, held_out = rows_of(spec)
    (words,) = expected_columns(graph, text_node(graph))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    search = GridSearchCV(classifier, {"logisticregression__C": [0.001, 0.01, 0.1, 1.0]}, cv=5)
    search.fit(_values(learned), [learned.plain(i)[words] for i in range(len(learned))])
    return judged("logistic regression", graph, search.predict(_values(held_out)).tolist(), learned, held_out)


def _values(rows: Rows) -> np.ndarray:
    """Expression [N, genes], every gene of the data."""
    return np.stack([row["cell"].values for row in rows])
