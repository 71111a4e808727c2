"""From logits to the next token, and from tokens to text as it grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at `temperature` 0, else drawn from softmax(logits / temperature).

    Of the sorted tokens those are drawn from that make up `top_p` of the mass. The same `seed` draws the same tokens.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def generator(self) -> np.random.Generator:
        """The source of draws of one request."""
        return np.random.default_rng(self.seed)

    def choose(self, logits: np.ndarray, generator: np.random.Generator) -> int:
        """A token of logits [V]."""
        if self.temperature == 0:
            return int(logits.argmax())
        scaled = logits.astype(np.float64) / self.temperature
        p = np.exp(scaled - scaled.max())
        p /= p.sum()
        if self.top_p < 1:
            order = np.argsort(-p, kind="stable")
            mass = np.cumsum(p[order])
            p[order[1 + np.searchsorted(mass, self.top_p) :]] = 0  # the likeliest always stays
            p /= p.sum()
        return int(generator.choice(len(p), p=p))


class Text:
    """The text of a growing answer: pieces that will not change, up to the first stop word."""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...]) -> None:
        self.tokenizer, self.stop = tokenizer, stop
        self.ids: list[int] = []
        self.given = ""
        self.stopped = False

    def add(self, token: int, last: bool = False) -> str:
        """What can be shown after one more token."""
        self.ids.append(token)
        return self._grown(last)

    def rest(self) -> str:
        """What was held back, now that no token follows."""
        return "" if self.stopped else self._grown(last=True)

    def _grown(self, last: bool) -> str:
        whole = self.tokenizer.decode(self.ids).removeprefix(" ")
        found = [at for word in self.stop if (at := whole.find(word)) >= 0]
        if found:
            whole, self.stopped = whole[: min(found)], True
        elif not last:
            whole = whole[: len(whole) - self._held_back(whole)]
        piece = whole[len(self.given) :] if whole.startswith(self.given) else ""
        self.given += piece
        return piece

    def _held_back(self, whole: str) -> int:
        """Characters at the end that may yet change: half a character, or the beginning of a stop word."""
        if whole.endswith("\ufffd"):
            return len(whole) - len(whole.rstrip("\ufffd"))
        longest = 0
        for word in self.stop:
            for size in range(1, min(len(word), len(whole) + 1)):
                if whole.endswith(word[:size]):
                    longest = max(longest, size)
        return longest
