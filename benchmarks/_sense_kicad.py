"""Families of electronic parts named from their CAD meshes, against a classifier of bounding box and moments."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from assembler.evaluate import expected_columns
from assembler.rows import Rows
from benchmarks._sense import Row, Score, judged, rows_of, text_node

ROW = Row("kicad", "3D", "at least the bounding box and moments", lambda score, base: score >= base)


def baseline(spec: Path) -> Score:
    """A random forest of 500 trees on where a mesh's box lies, its sides, and the moments of its surface."""
    from sklearn.ensemble import RandomForestClassifier

    graph, learned, held_out = rows_of(spec)
    (words,) = expected_columns(graph, text_node(graph))
    forest = RandomForestClassifier(500, random_state=0)
    forest.fit(_moments(learned), [learned.plain(i)[words] for i in range(len(learned))])
    given = forest.predict(_moments(held_out)).tolist()
    return judged("random forest on box and moments", graph, given, learned, held_out)


def _moments(rows: Rows) -> np.ndarray:
    """[N, 24]: sides, both corners and mean; about the mean the covariance, and each axis's third and fourth moment."""
    found = []
    for row in rows:
        places = row["cloud"].points[:, :3].astype(np.float64)
        low, high, mean = places.min(0), places.max(0), places.mean(0)
        away = places - mean
        covariance = (away.T @ away / len(away))[np.triu_indices(3)]
        found.append(np.concatenate([high - low, low, high, mean, covariance, (away**3).mean(0), (away**4).mean(0)]))
    return np.stack(found)
