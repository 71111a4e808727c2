"""MixDA's gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from assembler.part import MixerPart, NumberedPart
from assembler.registry import register
from components.adapters._examples import INNER, LAYERS, VIT_INNER, on_llama, on_vit

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host
    from assembler.adapters.tap import Insert


@register
class Mixda(NumberedPart, MixerPart):
    """g_0 f + sum_k g_k a_k with g = softmax(MLP(h)), over domain adapters a_k beside f = W2 h (arXiv 2306.05406).

    It is `by=` of a `fuse` over `adapter.domain_adapter`s. The MLP has three layers of `inner` with ReLU and dropout.
    The paper reads h of the last token of a row; in a causal model that is the future, and with padding it may be none:
    take `token` there, each its own gate. The start is no identity, since f is scaled by g_0. The first stage pulls it
    back: `preserve` weighs the mean square distance to f over the rows of old text, whose number in the column `rows:
    {old: COLUMN}` is 1, or over all. The second stage names the head alone as its objective, and that loss does not
    count.
    Parameters: points * (ff * w + w + 2 * (w * w + w) + w * (K + 1) + K + 1) with w = `inner`.
    """

    type = "adapter.mixda"
    identity: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ("old",)

    inner: int = Field(768, ge=1, le=65_536, description="w, inside the gate")
    reads: Literal["last", "token", "first"] = Field("last", description="which tokens a row's gate reads")
    dropout: float = Field(0.2, ge=0, lt=1, description="rate inside the gate, in training")
    preserve: float = Field(1.0, ge=0, le=1e4, description="weight of the distance to what the MLP gave before")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        found: list[tuple[dict[str, Any], int | None]] = []
        for base, width, points in ((on_llama, INNER, LAYERS), (on_vit, VIT_INNER, 1)):
            reads = {"reads": "token"} if base is on_llama else {"layers": [2]}
            count = points * (width * 5 + 5 + 2 * (5 * 5 + 5) + 5 * 3 + 3)
            tree, _ = base(cls.type, None, inner=5, **reads)
            host = tree["adapters"]["part"]["host"]
            domain = {"type": "adapter.domain_adapter", "host": host, "reduction": 8}
            domain |= {"layers": [2]} if base is on_vit else {}
            adapters = {"one": domain, "two": domain, **tree["adapters"]}
            found.append(({**tree, "adapters": adapters, "compose": {host: "fuse(one, two, by=part)"}}, count))
        return found

    def combine(self, on: Host, like: Insert, count: int) -> nn.Module:
        import torch

        from components.adapters._mixda import Mixture

        old = on.wire("old", torch.ones(1))
        return Mixture(on.read_width(like), self.inner, count, self.dropout, self.reads, self.preserve, old)
