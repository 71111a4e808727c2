"""The types that travel on wires: a kind and named, possibly symbolic, possibly unknown dimensions."""

from __future__ import annotations

from dataclasses import dataclass

from assembler.errors import AssemblerError

Dim = int | str | None
"""A size: a number, a symbol such as `batch`, or None while it cannot be known yet."""

AXES: dict[str, tuple[str, ...]] = {
    "image": ("batch", "channels", "height", "width"),
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
    """What a wire carries: `kind` from AXES and one Dim per axis of that kind."""

    kind: str
    shape: tuple[Dim, ...]

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
        return f"{self.kind} [{dims}]"

    def numel(self, batch: int = 1) -> int | None:
        """Elements for one batch, or None while a size is unknown."""
        total = 1
        for dim in self.shape:
            size = batch if dim == "batch" else dim
            if not isinstance(size, int):
                return None
            total *= size
        return total


def value(kind: str, **dims: Dim) -> Value:
    """A value of `kind`; axes not named are unknown, except `batch`.

    >>> str(value("tokens", tokens=49, width=1280))
    'tokens [batch, 49, 1280]'
    """
    return Value(kind, tuple("batch" if axis == "batch" else dims.get(axis) for axis in AXES[kind]))
