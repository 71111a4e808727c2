"""Raw samples: what a dataset's rows hold and what processors turn into tensors.

A picture is a PIL image, a video a sequence of them, a text a `str`, a label an `int`, a score a `float`; the rest are
the classes here. No torch: a server reads this too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Sound:
    """One channel of sound: `samples` float32 [S], about -1 to 1, `rate` of them a second."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate


@dataclass(frozen=True, eq=False)
class Cloud:
    """A cloud of points: `points` float32 [N, 3 + C], x y z and then C more channels such as colour or normals."""

    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Cell:
    """One nucleus: `values` float32 [G] for the `genes` (symbols or Ensembl ids); `raw` says that they are counts."""

    values: np.ndarray
    genes: tuple[str, ...]
    raw: bool
