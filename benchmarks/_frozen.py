"""What a frozen node of a graph gives for rows of data, for baselines that read the same features as the model."""

from __future__ import annotations

import numpy as np
import torch

from assembler.batches import Batches
from assembler.compile import Assembly, compile_graph, inference
from assembler.graph import Graph
from assembler.rows import Rows

BATCH = 32


def features(graph: Graph, node: str, *sides: Rows, assembly: Assembly | None = None) -> list[np.ndarray]:
    """Of each side the node's values, flat: [rows, features]; `assembly` is the graph's, where it is made already."""
    assembly, batches = assembly or compile_graph(graph), Batches(graph)

    def one(rows: Rows, start: int) -> torch.Tensor:
        batch = batches.samples(rows[start : start + BATCH])
        return assembly.values(batch, only=[node])[node].flatten(1)

    with inference(assembly):
        return [torch.cat([one(rows, i) for i in range(0, len(rows), BATCH)]).numpy() for rows in sides]
