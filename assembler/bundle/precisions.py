"""The precision of each graph of a bundle, as one word or one a graph: `int4`, or `talk=int4,photo=fp16`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import get_args

from assembler.bundle.manifest import Precision
from assembler.errors import AssemblerError

SLOT_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")


@dataclass(frozen=True)
class Precisions:
    """The decoder's, and those of the slots' graphs, which are fp32 unless they are named."""

    decoder: Precision = "fp32"
    slots: dict[str, Precision] = field(default_factory=dict)

    @property
    def all(self) -> set[Precision]:
        """Every precision that is in use."""
        return {self.decoder, *self.slots.values()}

    def __str__(self) -> str:
        return ", ".join([self.decoder, *(f"{name} {precision}" for name, precision in self.slots.items())])


def read_precisions(text: str, node: str, slots: Collection[str]) -> Precisions:
    """What `--precision` says, for a graph whose language model is `node`.

    Raises:
        AssemblerError: there is no such precision, or no graph of that name.
    """
    decoder: Precision = "fp32"
    chosen: dict[str, Precision] = {}
    for item in text.split(","):
        name, equals, word = (part.strip() for part in item.rpartition("="))
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
    return Precisions(decoder, chosen)
