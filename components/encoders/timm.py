"""Any image model of timm."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from assembler.bundle.manifest import Processor
from assembler.errors import AssemblerError
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._base import LayeredEncoder
from components.encoders._pictures import PictureEncoder

if TYPE_CHECKING:
    from torch import Tensor, nn


@register
class TimmEncoder(PictureEncoder, LayeredEncoder):
    """Image [B, C, H, W] -> tokens [B, T, width] (the grid of features, row by row) or an embedding [B, width].

    `model` is a name of timm without its tag. `layer` takes the features after that block or stage, counted from 0 or
    from the end, instead of the last. `mix` gives gamma * sum_l softmax(w)_l h_l over the blocks of a model whose
    blocks are all of one size, the last as the model itself gives it; a stage trains it alone as NODE.mix.
    `output: pooled` gives timm's own pooled features, of a mix the mean over its tokens; `output: logits` what the
    model's classifier says of its `classes`, as an embedding [B, classes]. Class and register tokens are left out
    unless `prefix`. A video or the crops of a picture are read frame by frame, into [B, F * T, width].
    Weights: a safetensors file or folder in timm's layout, or for `mobilenetv2_100` also torchvision's. Source: timm
    (R. Wightman, Apache-2.0). Parameters: those of the timm model, without its classifier unless it gives logits; with
    `mix` also blocks + 1.
    """

    type = "encoder.timm"

    model: str = Field(pattern=r"^[a-z][a-z0-9_]{0,99}$", description="timm's model name, such as mobilenetv2_100")
    output: Literal["tokens", "pooled", "logits"] = Field(  # type: ignore[assignment]
        "tokens", description="one token a place, their mean, or the classifier's logits"
    )
    classes: int | None = Field(None, ge=1, le=1_000_000, description="of the classifier; by default the model's own")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        photo = {"type": "input.image", "size": [32, 32]}
        film = {"type": "input.video", "size": [32, 32], "frames": 4}

        def spec(model: str, source: dict[str, Any] = photo, **knobs: Any) -> dict[str, Any]:
            nodes = {"source": source, "part": {"type": cls.type, "model": model, **knobs}}
            return {"nodes": nodes, "edges": ["source -> part"]}

        return [
            (spec("test_efficientnet"), None),
            (spec("test_efficientnet", layer=-2), None),
            (spec("test_vit"), None),
            (spec("test_vit", prefix=True), None),
            (spec("test_vit", output="pooled"), None),
            (spec("test_resnet", output="pooled"), None),
            (spec("test_resnet", output="logits", classes=7), None),
            (spec("test_vit", mix=True, prefix=True), None),
            (spec("test_efficientnet", film), None),
            (spec("test_vit", {**photo, "crops": 2}, output="pooled", mix=True), None),
        ]

    @model_validator(mode="after")
    def _classifier_of_the_end(self) -> Self:
        if self.output == "logits" and (self.mix or self.layer is not None):
            raise ValueError("`output: logits` is of the last layer; leave `layer` and `mix` out")
        if self.classes is not None and self.output != "logits":
            raise ValueError("`classes` is for `output: logits`; leave it out")
        return self

    def _facts(self) -> dict[str, Any]:
        return facts_of(self.model)

    def _level(self, facts: dict[str, Any]) -> tuple[int, int]:
        """(width, pixels a token side) of the chosen features."""
        if self.layer is None:
            return facts["width"], facts["reduction"]
        try:
            return tuple(facts["layers"][self.layer])
        except IndexError:
            last = len(facts["layers"]) - 1
            raise WireError("in", f"{self.model} has the layers 0 to {last}, and `layer` is {self.layer}") from None

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        image, facts = inputs["in"], self._known_facts()
        self.check_statistics(image)
        width, step = self._level(facts)
        if self.mix and any(level != facts["layers"][-1] for level in facts["layers"]):
            raise WireError(
                "in", f"the blocks of {self.model} are not all of one size; leave `mix` out, name a `layer`"
            )
        if self.output == "pooled":
            if self.layer is not None:
                raise WireError("in", "`output: pooled` is of the last layer; leave `layer` out, or take the tokens")
            return self.embedding_of(image, width if self.mix else facts["pooled"])
        if self.output == "logits":
            return self.embedding_of(image, self._classes(facts))
        height, length = image["height"], image["width"]
        if not isinstance(height, int) or not isinstance(length, int):
            return value("tokens", width=width)
        if facts["fixed"] and (height % step or length % step):
            raise WireError(
                "in", f"{self.model} cuts patches of {step} x {step} pixels; {height} x {length} does not fit"
            )
        grid = grid_of(facts, step, height, length)
        return self.tokens_of(image, grid, width, facts["prefix"] if self.prefix else 0)

    def _classes(self, facts: dict[str, Any]) -> int:
        if self.output != "logits":
            return 0
        if not (self.classes or facts["classes"]):
            raise WireError("in", f"{self.model} has no classifier of its own; say how many `classes` yours has")
        return self.classes or int(facts["classes"])

    def _known_facts(self) -> dict[str, Any]:
        try:
            return self._facts()
        except AssemblerError as error:
            raise WireError("in", str(error)) from error

    def processor(self, source: Part, base: Path) -> Processor:
        facts = self._facts()
        return self.pictures(source, facts["mean"], facts["std"], facts["interpolation"])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._timm import TimmTower

        image = inputs["in"]
        facts = self._facts()
        size = (image.size("height"), image.size("width")) if facts["fixed"] else None
        mixed = len(facts["layers"]) if self.mix else 0
        knobs = (self.layer, self.output, self.prefix, mixed, self._classes(facts))
        return TimmTower(self.model, image.size("channels"), size, *knobs)

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        from components.encoders._timm import load_tower

        load_tower(module.tower, state, f"{self.model} from {self.weights}")  # type: ignore[arg-type]


def facts_of(model: str) -> dict[str, Any]:
    """What shapes need to know of a timm model: from the table, or read off the model itself.

    Raises:
        AssemblerError: timm has no such model, or it gives no grid of features.
    """
    known = table().get(model)
    if known is None:
        from components.encoders._timm import facts

        known = facts(model)
    return known


def grid_of(facts: dict[str, Any], step: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the features of a picture, at `step` pixels a side."""
    rows, columns = (-(-side // step) if facts["ceil"] else side // step for side in (height, width))
    return rows, columns


@cache
def table() -> dict[str, dict[str, Any]]:
    """What shapes need to know of common models, so that checking a spec imports no torch; made by `_timm.py`."""
    return json.loads((Path(__file__).parent / "timm_facts.json").read_text(encoding="utf-8"))
