"""A router by number: each row of the batch takes the adapter that it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from assembler.part import MixerPart, NumberedPart
from assembler.registry import register
from components.adapters._examples import on_vit

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class ById(NumberedPart, MixerPart):
    """a_i for the row whose number is i: of N adapters under `route`, each row of the batch takes one.

    The numbers [B] come from the column `rows: {ids: COLUMN}`, or are laid on the wire by hand,
    `book.wires(name)["ids"].lay(numbers)`; until then every row takes the adapter `default`. Rows of different tasks so
    run in one batch.
    Parameters: 0.
    """

    type = "adapter.by_id"
    identity: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("ids",)

    default: int = Field(0, ge=0, le=10_000, description="the adapter of rows that are told nothing")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        tree, count = on_vit(cls.type, 0)
        two = {name: {"type": "adapter.houlsby", "host": "eyes", "size": 2, "norms": False} for name in ("one", "two")}
        composed = {"adapters": {**two, **tree["adapters"]}, "compose": {"eyes": "route(one, two, by=part)"}}
        return [({**tree, **composed}, count)]

    def combine(self, on: Host, like: Insert, count: int) -> nn.Module:
        import torch

        from components.adapters._fusion import ById as Chosen

        return Chosen(on.wire("ids", torch.tensor([self.default])), count)
