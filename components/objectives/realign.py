"""TrRa, the training-time half of flexible realignment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from assembler.part import ObjectivePart
from assembler.registry import register
from assembler.values import Dim, Value, value

if TYPE_CHECKING:
    from torch import nn


@register
class Realign(ObjectivePart):
    """KL(teacher || student) with teacher = softmax(lam h_aligned + (1 - lam) h_reference), logits [B, A, V] each.

    From a reference model and what it became by alignment, both frozen, a student that starts as the reference learns
    to be aligned less (lam below 1) or more (above) than that (TrRa, arXiv 2506.12704); with the student as the next
    aligned model it can be repeated. `direction: student` takes KL(student || teacher) instead. The softmax goes over
    the vocabulary; the released trainer's goes over time. All three are prompted alike. Parameters: 0.
    """

    type = "objective.realign"
    accepts = {"student": ("logits",), "reference": ("logits",), "aligned": ("logits",)}

    lam: float = Field(1.5, ge=-100, le=100, description="how aligned the student should be; 1 as the aligned model")
    direction: Literal["teacher", "student"] = Field("teacher", description="whose distribution the mean is taken over")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        config = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
        config |= {"num_attention_heads": 2, "num_key_value_heads": 1}
        lm = {"type": "backbone.causal_lm", "arch": "llama", "config": config, "prompt": "{question} {answer}"}
        names = ("student", "reference", "aligned")
        nodes = {**{name: lm for name in names}, "part": {"type": cls.type}}
        return [({"nodes": nodes, "edges": [f"{name} -> part.{name}" for name in names]}, 0)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        return value("logits", classes=inputs["student"]["classes"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.objectives._realign import Realign

        return Realign(self.lam, self.direction)
