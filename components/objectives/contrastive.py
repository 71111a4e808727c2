"""Two views of one thing drawn together, and those of different things apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import ObjectivePart, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.projectors._base import EARS

if TYPE_CHECKING:
    from torch import nn

TOKENS = ("embedding", "tokens", "features")


@register
class Contrastive(ObjectivePart):
    """s_ij = e^t cos(A x_i, B y_j) over a batch of pairs x, y [B, in] each; tokens [B, T, in] are averaged first.

    `loss: clip` is the mean cross-entropy of each row and each column of s to its diagonal (t starts at log(1 / 0.07)
    and stays under log 100; arXiv 2103.00020). `loss: siglip` is -1 / B sum_ij log sigmoid(z_ij (s_ij + b)), z = 1 on
    the diagonal and -1 beside it (t starts at log 10, b at -10; arXiv 2303.15343). With `width`, A and B are learned
    projections to it, without biases; otherwise they leave their inputs as they are. Negatives are those of a process's
    own batch. It puts out the two embeddings, of length one: [B, 2, width].
    Parameters: (in_first + in_second) * width with `width`, plus 1 (siglip: 2).
    """

    type = "objective.contrastive"
    accepts = {"first": TOKENS, "second": TOKENS}
    masks = "own"
    answers = "pair"

    loss: Literal["clip", "siglip"] = Field("clip", description="softmax over the batch, or a sigmoid a pair")
    width: int | None = Field(None, ge=1, le=65_536, description="of a learned projection of both; by default none")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        nodes = {
            **EARS,
            "photo": {"type": "input.image", "size": [64, 64]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet", "output": "pooled"},
        }
        edges = ["sound -> ears", "photo -> eyes"]
        pair = {"nodes": {**nodes, "part": {"type": cls.type, "width": 8}}}
        other = {"type": "encoder.timm", "model": "test_efficientnet"}
        twins = {"nodes": {**nodes, "tokens": other, "part": {"type": cls.type, "loss": "siglip"}}}
        wires = ["eyes -> part.first", "ears -> part.second"], ["eyes -> part.first", "tokens -> part.second"]
        return [
            ({**pair, "edges": [*edges, *wires[0]]}, (256 + 16) * 8 + 1),
            ({**twins, "edges": [*edges, "photo -> tokens", *wires[1]]}, 2),
        ]

    def answer(self, output: dict[str, Any]) -> list[Any]:
        return output["embeddings"].float().tolist()

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        first, second = inputs["first"]["width"], inputs["second"]["width"]
        if self.width is None and None not in (first, second) and first != second:
            raise WireError("second", f"the two are {first} and {second} wide; set `width` to project both to")
        return value("tokens", tokens=2, width=self.width or first)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.objectives._objectives import ContrastiveLoss

        widths = (inputs["first"].size("width"), inputs["second"].size("width"))
        return ContrastiveLoss(*widths, self.width, self.loss)
