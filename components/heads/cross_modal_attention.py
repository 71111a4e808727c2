"""Classes by their names, read by a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from assembler.errors import AssemblerError
from assembler.registry import register
from assembler.values import Value
from components.encoders._base import WeightedPart
from components.heads.classifier import Classifier

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
class CrossModalAttention(Classifier, WeightedPart):
    """logits = s cos(x', t'_c) for an image's embedding x [B, d] and those of the names of C classes, t [C, d].

    The adapter (arXiv 2409.02958) brings [t_1 ... t_C; x] to b numbers each, lets every name attend to the image and
    the image to all names in `heads` heads, and brings them back: A(x), A(t_c). Then x' = blend * A(x) / |A(x)| +
    (1 - blend) * x / |x|, and the same for t, whose names so depend on the image. `weights` is a safetensors file whose
    `embeddings` [C, d] are the names' in CLIP's text tower; they and s stand still. With `blend: 0` it is CLIP itself.
    The paper's other forms: `ways: mlp` brings to b numbers and back by two layers with ReLU, b wide between, and
    `inside: layer` is a whole transformer layer, LN(y + MLP(y)) after y = LN(x + attention(x)), its MLP 4 b wide.
    Parameters: d * b + b + 4 * (b * b + b) + b * d + d; `ways: mlp` 2 * (b * b + b) more, `inside: layer`
    8 * b * b + 5 * b + 4 * b more.
    """

    type = "head.cross_modal_attention"
    accepts = {"in": ("embedding",)}

    inner: int = Field(128, ge=1, le=65_536, description="b, the adapter's width")
    heads: int = Field(4, ge=1, le=256, description="of its attention, which divide b")
    ways: Literal["linear", "mlp"] = Field("linear", description="how it comes to b numbers and back")
    inside: Literal["attention", "layer"] = Field("attention", description="what is between")
    blend: float = Field(0.2, ge=0, le=1, description="share of the adapter in what is compared")
    scale: float = Field(100.0, gt=0, le=1e4, description="s; CLIP's own has learned 100")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        nodes: dict[str, dict[str, Any]] = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_vit", "output": "pooled"},
            "part": {"type": cls.type, "classes": 5, "inner": 8, "heads": 2},
        }
        count, edges = 64 * 8 + 8 + 4 * (8 * 8 + 8) + 8 * 64 + 64, ["photo -> eyes", "eyes -> part"]
        more = {**nodes, "part": {**nodes["part"], "ways": "mlp", "inside": "layer"}}
        rest = 2 * (8 * 8 + 8) + 8 * 8 * 8 + 5 * 8 + 4 * 8
        return [({"nodes": nodes, "edges": edges}, count), ({"nodes": more, "edges": edges}, count + rest)]

    @model_validator(mode="after")
    def _divides(self) -> CrossModalAttention:
        if self.inner % self.heads:
            raise ValueError(f"`inner` {self.inner} is no multiple of the {self.heads} `heads`")
        return self

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.heads._cross_modal_attention import CrossModalHead

        width = inputs["in"].size("width")
        sizes = (width, self.classes, self.inner, self.heads, self.blend, self.scale, self.dropout)
        return CrossModalHead(*sizes, self.ways == "mlp", self.inside == "layer")

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        names: Any = module.names
        found = state.get("embeddings")
        if found is None or found.shape != names.shape:
            have = "none" if found is None else list(found.shape)
            raise AssemblerError(
                f"{self.weights}: `embeddings` is to be {list(names.shape)}, one row a class, not {have}"
            )
        module.names = found.to(names.dtype)
