"""The precision of each graph of a bundle, as one word or one a graph: `int4`, or `talk=int4,photo=fp16`.

`cache=int8` keeps the decoder's keys and values in 8 bits.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import get_args

from assembler.bundle.manifest import Held, Precision
from assembler.errors import AssemblerError

CACHE = "cache"
SLOT_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")


@dataclass(frozen=True)
class Precisions:
    """The decoder's, those of the slots' graphs, which are fp32 unless they are named, and that of the cache."""

    decoder: Precision = "fp32"
    slots: dict[str, Precision] = field(default_factory=dict)
    cache: Held | None = None

    @property
    def all(self) -> set[Precision]:
        """Every precision that is in use."""
        return {self.decoder, *self.slots.values(), *([] if self.cache is None else [self.cache])}

    def __str__(self) -> str:
        held = [] if self.cache is None else [f"{CACHE} {self.cache}"]
        return ", ".join([self.decoder, *(f"{name} {precision}" for name, precision in self.slots.items()), *held])


def read_precisions(text: str, node: str, slots: Collection[str]) -> Precisions:
    """What `--precision` says, for a graph whose language model is `node`.

    Raises:
        AssemblerError: there is no such precision, or no graph of that name.
    """
    decoder: Precision = "fp32"
    chosen: dict[str, Precision] = {}
    cache: Held | None = None
    for item in text.split(","):
        name, equals, word = (part.strip() for part in item.rpartition("="))
        if name == CACHE not in (node, *slots):
            if word != "int8":
                raise AssemblerError(f"--precision {item}: a cache is kept in int8, or like the decoder: leave it out")
            cache = "int8"
            continue
        if equals and name not in (node, *slots):
            raise AssemblerError(f"--precision {item}: there is no graph {name}; there are {', '.join([node, *slots])}")
        allowed = SLOT_PRECISIONS if equals and name != node else get_args(Precision)
        known = next((precision for precision in allowed if precision == word), None)
        if known is None:
            raise AssemblerError(f"--precision {item}: it is one of {', '.join(allowed)}")
        if equals and name != node:
            chosen[name] = known
        else:
            decoder = known
    return Precisions(decoder, chosen, cache)
