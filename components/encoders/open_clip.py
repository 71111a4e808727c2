"""Image towers of open_clip."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from assembler.bundle.manifest import Processor
from assembler.configs import read_json, size_in
from assembler.errors import AssemblerError
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.suggest import nearest
from assembler.values import Dim, Value
from assembler.weights import cached, parse_source
from components.encoders._base import LayeredEncoder
from components.encoders._pictures import PictureEncoder
from components.encoders.hf_vision import HALF, OPENAI, sides
from components.encoders.timm import facts_of, grid_of

if TYPE_CHECKING:
    from torch import Tensor, nn

PLAIN = ((0.0,) * 3, (1.0,) * 3)


@dataclass(frozen=True)
class Tower:
    """What shapes need to know of an image tower: the width and pixels a side of the tokens after each layer."""

    levels: tuple[tuple[int, int], ...]
    patch: tuple[int, int]
    size: tuple[int, int]
    prefix: int = 0
    trunk: str = ""
    stretches: bool = False
    """Whether its positions can be resized to another picture; then it is a vision transformer of open_clip's own."""


@register
class OpenClip(PictureEncoder, LayeredEncoder):
    """Image [B, C, H, W] -> tokens [B, T, width], or an embedding [B, embed_dim] in the space shared with text.

    `model` is a name of open_clip; the names in -quickgelu are those of OpenAI's own weights. `config` describes
    another as open_clip's model configs do, and an open_clip_config.json beside the weights does without either. The
    tokens are those of the last layer, of open_clip's own transformers after the final norm; class tokens are left out
    unless `prefix`. `layer` reads another block or stage, and `mix` all of a transformer of open_clip's own, whose
    positions are also resized to another image size. `output: pooled` gives what open_clip compares with text, of a mix
    the mean over its tokens. A video or the crops of a picture are read frame by frame. Pixels are scaled as
    open_clip_config.json says, otherwise as OpenAI's CLIP, SigLIP and MobileCLIP do for their names. Weights: a file in
    open_clip's layout, of which the image tower is taken. Source: open_clip (G. Ilharco et al., MIT); arXiv 2103.00020,
    2212.07143. Parameters: those of the image tower; with `mix` also layers + 2.
    """

    type = "encoder.open_clip"

    model: str | None = Field(None, max_length=100, description="open_clip's model name, such as ViT-B-32")
    config: dict[str, Any] | None = Field(None, description="embed_dim, vision_cfg and quick_gelu of another model")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        tower = {"image_size": 16, "patch_size": 8, "layers": 2, "width": 16, "head_width": 8}
        photo = {"type": "input.image", "size": [16, 24]}

        def spec(vision: dict[str, Any], source: dict[str, Any] = photo, **knobs: Any) -> dict[str, Any]:
            config = {"embed_dim": 12, "vision_cfg": vision}
            nodes = {"source": source, "part": {"type": cls.type, "config": config, **knobs}}
            return {"nodes": nodes, "edges": ["source -> part"]}

        trunk = {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "", "timm_proj": "linear"}
        large = {"type": "input.image", "size": [160, 160]}
        return [
            (spec(tower, mix=True, prefix=True), None),
            (spec(tower, {"type": "input.video", "size": [16, 16], "frames": 2}, output="pooled"), None),
            (spec(trunk, large, layer=0), None),
        ]

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.model and self.config:
            raise ValueError("`model` names a config that open_clip has, and `config` gives one; give one of them")
        return self

    def _beside(self, base: Path) -> dict[str, Any]:
        """The open_clip_config.json beside the weights, or empty."""
        path = None if self.weights == "random" else cached(parse_source(self.weights), base)
        return read_json((path if path.is_dir() else path.parent) / "open_clip_config.json") if path else {}

    def _config(self, base: Path) -> dict[str, Any]:
        """The model's config, with `vision_cfg`.

        Raises:
            WireError: there is none.
        """
        if self.model and self.model not in _names():
            raise WireError("in", f"open_clip has no model {self.model}{nearest(self.model, _names())}")
        found = self.config or (read_json(_names()[self.model]) if self.model else self._beside(base).get("model_cfg"))
        if not found:
            raise WireError("in", "name a `model` of open_clip, such as ViT-B-32, or give its `config`")
        if not isinstance(found, dict) or not isinstance(found.get("vision_cfg"), dict):
            raise WireError("in", "the config has no `vision_cfg`; write it as open_clip's model configs do")
        return found

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        image, config = inputs["in"], self._config(base)
        self.check_statistics(image)
        if image["channels"] != 3:
            raise WireError("in", f"open_clip's models see 3 channels, and the image has {image['channels']}")
        tower, size = tower_of(config["vision_cfg"]), (image.size("height"), image.size("width"))
        block = self.block(len(tower.levels))
        if self.mix and not tower.stretches:
            raise WireError("in", "`mix` is for vision transformers of open_clip's own; name a `layer`")
        if size != tower.size and not tower.stretches:
            raise WireError("in", f"this model sees {tower.size[0]} x {tower.size[1]} pixels; make that the `size`")
        if size[0] % tower.patch[0] or size[1] % tower.patch[1]:
            patch = f"{tower.patch[0]} x {tower.patch[1]}"
            raise WireError("in", f"this model cuts patches of {patch} pixels; {size[0]} x {size[1]} does not fit")
        width, step = tower.levels[-1 if block is None else block]
        if self.output == "pooled":
            if block is not None:
                raise WireError("in", "`output: pooled` is of the last layer; leave `layer` out, or take the tokens")
            return self.embedding_of(image, width if self.mix else size_in(config, "embed_dim") or 512)
        if tower.trunk:
            grid = grid_of(facts_of(tower.trunk), step, *size)
        else:
            grid = (size[0] // (step or tower.patch[0]), size[1] // (step or tower.patch[1]))
        return self.tokens_of(image, grid, width, tower.prefix if self.prefix else 0)

    def processor(self, source: Part, base: Path) -> Processor:
        config, found = self._config(base), self._beside(base).get("preprocess_cfg") or {}
        mean, std, interpolation = _statistics(f"{self.model} {config['vision_cfg'].get('timm_model_name')}".lower())
        said = found.get("interpolation", interpolation)
        return self.pictures(source, found.get("mean", mean), found.get("std", std), said)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._open_clip import OpenClipTower

        config, image = self._config(base), inputs["in"]
        tower = tower_of(config["vision_cfg"])
        size = (image.size("height"), image.size("width"))
        block, pooled = self.block(len(tower.levels)), self.output == "pooled"
        return OpenClipTower(config, tower, size, block, self.mix, pooled, self.prefix)

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        from components.encoders._open_clip import OpenClipTower, place_tower

        assert isinstance(module, OpenClipTower)
        place_tower(module, state, f"{self.model or 'the config'} from {self.weights}")


def tower_of(vision: dict[str, Any]) -> Tower:
    """What a `vision_cfg` describes.

    Raises:
        WireError: its sizes are none.
    """
    size = sides(vision, "image_size", 224)
    if trunk := vision.get("timm_model_name"):
        facts = facts_of(str(trunk))
        levels = (*facts["layers"][:-1], (facts["width"], facts["reduction"]))
        return Tower(tuple((a, b) for a, b in levels), (1, 1), size, facts["prefix"], str(trunk))
    layers, width = vision.get("layers", 12), size_in(vision, "width") or 768
    if isinstance(layers, list | tuple):
        stages = tuple((4 * width * 2**i, 4 * 2**i) for i in range(4))
        return Tower(((width, 4), *stages), (32, 32), size)
    if vision.get("attentional_pool") or not isinstance(layers, int) or layers < 1:
        raise WireError("in", "the `vision_cfg` has no count of layers, or pools its tokens; pick another model")
    patch = sides(vision, "patch_size", 16)
    return Tower(((width, 0),) * layers, patch, size, prefix=1, stretches=True)


def _statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Means, standard deviations and interpolation that models of a name were trained with."""
    if "siglip" in name:
        return *HALF, "bicubic"
    if "mobileclip" in name:
        return *PLAIN, "bilinear"
    return *OPENAI, "bicubic"


@cache
def _names() -> dict[str, Path]:
    """Config files of open_clip by model name, found without importing it."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        raise AssemblerError("open_clip is not installed; run `pip install open_clip_torch`")
    return {file.stem: file for file in (Path(found.origin).parent / "model_configs").glob("*.json")}
