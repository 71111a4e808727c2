"""What encoders of point clouds share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from assembler.bundle.manifest import Processor
from assembler.errors import AssemblerError
from assembler.part import Masks, Part, WireError
from assembler.values import Value, value


class PointsEncoder(Part):
    """points [B, N, 3 + C] -> tokens [B, T, width] or an embedding [B, width].

    A cloud with fewer real points than there are tokens has as many real tokens as points.
    """

    accepts: ClassVar[dict[str, tuple[str, ...]]] = {"in": ("points",)}
    masks: ClassVar[Masks] = "own"

    def processor(self, source: Part, base: Path) -> Processor:
        made = getattr(source, "points_processor", None)
        if made is None:
            raise AssemblerError(f"{self.type} reads points, and {source.type} gives none; wire an input.points")
        return made()

    def check_counts(self, points: Value, **counts: int) -> None:
        """None of these knobs asks for more points than there are.

        Raises:
            WireError: one does.
        """
        for name, count in counts.items():
            if count > points.size("points"):
                raise WireError(
                    "in", f"`{name}` is {count}, of a cloud of {points.size('points')} points; change either"
                )

    def points_value(self, points: Value, tokens: int, width: int, pooled: bool) -> Value:
        """The value of this many tokens, or of their pooled embedding."""
        return value("embedding", width=width) if pooled else value("tokens", points.ragged, tokens=tokens, width=width)

    @classmethod
    def after_points(cls, points: int = 48, extra: int = 0, short: str = "mask", **knobs: Any) -> dict[str, Any]:
        """A small spec in which the encoder reads a cloud."""
        nodes = {
            "cloud": {"type": "input.points", "points": points, "extra": extra, "short": short},
            "part": {"type": cls.type, **knobs},  # type: ignore[attr-defined]
        }
        return {"nodes": nodes, "edges": ["cloud -> part"]}
