"""Raw samples for any graph."""

import numpy as np
from PIL import Image

from assembler.graph import Graph
from assembler.samples import Cell, Cloud, Sound


def row_of(graph: Graph, seed: int) -> dict:
    """A raw sample of every column that is read, of a length that the seed settles."""
    drawn = np.random.default_rng(seed)

    def sample(kind: str, column: str) -> object:
        if kind == "image":
            return Image.fromarray(drawn.integers(0, 256, (20 + 9 * seed, 30, 3), np.uint8))
        if kind == "video":
            return [sample("image", column) for _ in range(2 + seed)]
        if kind == "audio":
            return Sound(drawn.normal(0, 0.1, 4000 + 3000 * seed).astype(np.float32), 16_000)
        if kind == "points":
            extra = graph.processor(column).extra
            return Cloud(drawn.normal(size=(6 + 20 * seed, 3 + extra)).astype(np.float32))
        if kind == "expression":
            processor = graph.processor(column)
            return Cell(
                drawn.poisson(2.0, len(processor.genes)) + np.float32(1), processor.genes, processor.normalise != "none"
            )
        return "yes" if column == "answer" else "what is it" + "?" * seed

    return {column: sample(kind, column) for column, kind in graph.columns().items()}
