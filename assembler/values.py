"""The types that travel on wires: a kind and named, possibly symbolic, possibly unknown dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from assembler.errors import AssemblerError

Dim = int | str | None
"""A size: a number, a symbol such as `batch`, or None while it cannot be known yet."""

AXES: dict[str, tuple[str, ...]] = {
    "image": ("batch", "channels", "height", "width"),
    "video": ("batch", "frames", "channels", "height", "width"),
    "waveform": ("batch", "samples"),
    "features": ("batch", "frames", "width"),
    "points": ("batch", "points", "channels"),
    "expression": ("batch", "genes"),
    "tokens": ("batch", "tokens", "width"),
    "embedding": ("batch", "width"),
    "text": ("batch",),
    "logits": ("batch", "classes"),
    "latent": ("batch", "channels", "height", "width"),
}


@dataclass(frozen=True)
class Value:
    """What a wire carries: `kind` from AXES and one Dim per axis of that kind.

    A `ragged` value has samples of different lengths along its second axis, padded to the size given here; its wire
    carries a mask beside the numbers. `facts` are what else the next part may need to know, such as the `rate` of a
    sound, the `grid` of an image's tokens or the `genes` of a cell.
    """

    kind: str
    shape: tuple[Dim, ...]
    ragged: bool = False
    facts: tuple[tuple[str, Any], ...] = ()

    def fact(self, name: str) -> Any:
        """What is known beside the shape, or None."""
        return dict(self.facts).get(name)

    def with_facts(self, **facts: Any) -> Value:
        """The same value with these facts added."""
        return replace(self, facts=tuple(sorted({**dict(self.facts), **facts}.items())))

    def __getitem__(self, axis: str) -> Dim:
        return self.shape[AXES[self.kind].index(axis)]

    def size(self, axis: str) -> int:
        """A dimension that must be a number by now.

        Raises:
            AssemblerError: it is not known.
        """
        dim = self[axis]
        if not isinstance(dim, int):
            raise AssemblerError(f"the {axis} of {self} is not known; fetch the weights it follows from, or say it")
        return dim

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{self.kind} [{dims}]" + (" ragged" if self.ragged else "")

    def numel(self, batch: int = 1) -> int | None:
        """Elements for one batch, or None while a size is unknown."""
        total = 1
        for dim in self.shape:
            size = batch if dim == "batch" else dim
            if not isinstance(size, int):
                return None
            total *= size
        return total


def value(kind: str, ragged: bool = False, facts: Mapping[str, Any] | None = None, **dims: Dim) -> Value:
    """A value of `kind`; axes not named are unknown, except `batch`.

    >>> str(value("tokens", tokens=49, width=1280))
    'tokens [batch, 49, 1280]'
    """
    shape = tuple("batch" if axis == "batch" else dims.get(axis) for axis in AXES[kind])
    return Value(kind, shape, ragged, tuple(sorted((facts or {}).items())))
