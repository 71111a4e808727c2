"""MeteoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import MixerPart, NumberedPart
from assembler.registry import register
from components.adapters._examples import INNER, LAYERS, WIDTH, on_llama

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class Meteora(NumberedPart, MixerPart):
    """W x + sum_i g_i s_i B_i A_i x over k LoRAs a token, gated at every linear (arXiv 2405.13053).

    z = G x [N] with G from N(0, 0.02), and g is softmax(z / temperature) over the k largest; one alone has g = 1. It is
    `by=` of a `route` over trained LoRAs. While it learns, `loss` weighs the cross entropy of all z against the task of
    the row, its number among the LoRAs or -1 for none, from the column `rows: {tasks: COLUMN}`. `dispatch: dense`
    computes all LoRAs as one low-rank change, `gather` fetches A and B of the k of each token, which is less work for
    few tokens. Neither loops over LoRAs.
    Parameters: N * sum over the linears of in.
    """

    type = "adapter.meteora"
    identity: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("tasks",)

    top: int = Field(2, ge=1, le=1000, description="k")
    temperature: float = Field(1.0, gt=0, le=1e4, description="above 1 the gates are more even")
    loss: float = Field(1.0, ge=0, le=1e4, description="weight of the gates' cross entropy")
    dispatch: Literal["dense", "gather"] = Field("dense", description="how the k LoRAs are computed")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        lora = {"type": "adapter.lora", "host": "talk", "rank": 2, "sites": "layers.*.{attn.q,mlp.down}"}
        found = []
        for options in ({}, {"top": 1, "dispatch": "gather"}):
            tree, count = on_llama(cls.type, 3 * LAYERS * (WIDTH + INNER), **options)
            adapters = {**{name: lora for name in ("one", "two", "three")}, **tree["adapters"]}
            found.append(
                ({**tree, "adapters": adapters, "compose": {"talk": "route(one, two, three, by=part)"}}, count)
            )
        return found

    def combine(self, on: Host, like: Insert, count: int) -> nn.Module:
        import torch

        from components.adapters._meteora import TaskGates

        tasks = on.wire("tasks", torch.tensor([-1]))
        sizes = (on.read_width(like), count, self.top, self.temperature, self.loss)
        return TaskGates(*sizes, tasks, self.dispatch == "gather")
