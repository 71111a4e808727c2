"""Rows of one cache that stays where it is: each holds one request's keys and values and, afterwards, its prefix."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from types import MappingProxyType

import numpy as np
import onnxruntime

from assembler.bundle.decoding import PAST, Matrices, Reader, Rows, unwritten


class Slots:
    """A decoder's in-place cache of `count` rows and `length` positions, on its device.

    A prompt is run on one row, behind what that row already holds of it; then one step runs all rows up to the last
    busy one together. A row that is idle in between takes a token that nobody reads, behind what it holds; so does one
    that has another LoRA than the rows of this step.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        device: str,
        count: int,
        length: int,
        reader: Reader | None = None,
    ) -> None:
        self.count, self.length = count, length
        past = [x for x in session.get_inputs() if x.name.startswith(PAST)]
        buffers = {x.name: unwritten((count, x.shape[1], length, x.shape[3]), x.type, device) for x in past}
        self.rows = Rows(session, device, buffers, reader)
        self.held: list[list[Hashable]] = [[] for _ in range(count)]
        """What each row's keys and values are of: token ids, or names of feature rows."""

    def best(self, free: Sequence[int], keys: Sequence[Hashable]) -> tuple[int, int]:
        """Of the free rows the one that already holds most of a prompt, and how much; never all of it."""
        row = max(free, key=lambda row: (self._shared(row, keys), -row))
        return row, min(self._shared(row, keys), len(keys) - 1)

    def _shared(self, row: int, keys: Sequence[Hashable]) -> int:
        return next((i for i, (a, b) in enumerate(zip(self.held[row], keys, strict=False)) if a != b),
                    min(len(self.held[row]), len(keys)))  # fmt: skip

    def prefill(
        self,
        row: int,
        embeds: np.ndarray,
        keys: Sequence[Hashable],
        shared: int,
        adapter: Matrices = MappingProxyType({}),
    ) -> np.ndarray:
        """Logits [V] after a prompt, of which `embeds` [1, T - shared, D] are the positions that the row lacks."""
        del self.held[row][shared:]  # until it is written again
        logits = self.rows.prompt(row, embeds[0], shared, adapter)
        self.held[row] = list(keys)
        return logits

    def step(
        self,
        embeds: np.ndarray,
        busy: Sequence[int],
        keys: Sequence[Hashable],
        adapter: Matrices = MappingProxyType({}),
    ) -> np.ndarray:
        """Logits [n, V] after one more token of each of the rows 0 to n - 1, of which `busy` are read.

        `embeds` is [n, 1, D] and `keys` names the busy rows' tokens.
        """
        rows = len(embeds)
        for row in range(rows):
            if row not in busy and len(self.held[row]) == self.length:
                self.held[row].pop()  # room for the token that nobody reads
        lengths = np.array([len(held) + 1 for held in self.held[:rows]], np.int64)
        logits = self.rows.run(0, rows, embeds, lengths, adapter)
        for row, key in zip(busy, keys, strict=True):
            self.held[row].append(key)
        return logits
