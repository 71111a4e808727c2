"""Image encoders of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.bundle.manifest import Processor
from assembler.configs import read_json, size_in
from assembler.errors import AssemblerError
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._base import EncoderPart
from components.encoders._pictures import PictureEncoder

if TYPE_CHECKING:
    from torch import nn

HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, as preprocessor_config.json has them."""


@dataclass(frozen=True)
class Family:
    """Models of one config class: the classes of transformers, and where they differ.

    `before` is a norm on the embeddings, `after` one on all tokens of the end, `head` what makes the pooled embedding
    (of the class token where there is one, else of all tokens).
    """

    config: str
    model: str
    layers: str
    patch: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    before: str = ""
    after: str = "layernorm"
    head: str = ""
    prefix: int = 1
    registers: int = 0
    interpolation: str = "bicubic"
    any_size: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    unused: tuple[str, ...] = ()

    def unread(self, layer: int | None, pooled: bool) -> list[str]:
        """What no output reads, and what is not read for the state after block `layer` or the model's own pooling."""
        later = [f"{self.layers}.{layer + 1}", *filter(None, [self.after])] if layer is not None else []
        return [*self.unused, *later, *([self.head] if self.head and not pooled else [])]


FAMILIES = {
    "clip_vision_model": Family(
        "CLIPVisionConfig", "CLIPVisionModel", "encoder.layers", 32, OPENAI, "pre_layrnorm", "", "post_layernorm"
    ),
    "siglip_vision_model": Family(
        "SiglipVisionConfig", "SiglipVisionModel", "encoder.layers", 16, HALF, "", "post_layernorm", "head", prefix=0
    ),
    "dinov2": Family(
        "Dinov2Config", "Dinov2Model", "encoder.layer", 14, IMAGENET, any_size=True, unused=("embeddings.mask_token",)
    ),
    "dinov2_with_registers": Family(
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        "encoder.layer",
        16,
        IMAGENET,
        registers=4,
        any_size=True,
        unused=("embeddings.mask_token",),
    ),
    "vit": Family(
        "ViTConfig",
        "ViTModel",
        "layers",
        16,
        HALF,
        interpolation="bilinear",
        options=(("add_pooling_layer", False),),
    ),
}
WHOLE = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
"""Models with a text tower beside the vision tower that is taken."""


@register
class HfVision(PictureEncoder, EncoderPart):
    """Image [B, C, H, W] -> tokens [B, T, width] of CLIP, SigLIP, DINOv2 (with registers too) or ViT of transformers.

    T = (H / patch) (W / patch), row by row; class and register tokens are left out unless `prefix`. Of another image
    size than the model's own the positions are interpolated. `layer` and `mix` read earlier blocks (LLaVA takes
    CLIP's `layer: -2`); the last state is the model's: after its final norm, which CLIP has for the class token alone.
    `output: pooled` gives the class token after the final norm, of SigLIP the attention head's embedding, of a mix the
    mean over its tokens. A SigLIP 2 of one fixed size is a `siglip`. A video or the crops of a picture are read frame
    by frame. Pixels are scaled as the folder's preprocessor_config.json says, otherwise as the family's own are.
    Sources: arXiv 2103.00020, 2303.15343, 2304.07193, 2309.16588, 2010.11929. Parameters: those of transformers'
    vision model for the config that the output reads: without blocks after `layer` and without a head, mask token or
    last norm that it does not use; with `mix` also layers + 2.
    """

    type = "encoder.hf_vision"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
        mlp, photo = {"intermediate_size": 32}, {"type": "input.image", "size": [16, 24]}

        def spec(model: str, more: dict[str, Any], source: dict[str, Any] = photo, **knobs: Any) -> dict[str, Any]:
            config = {"model_type": model, **small, **more}
            nodes = {"source": source, "part": {"type": cls.type, "config": config, **knobs}}
            return {"nodes": nodes, "edges": ["source -> part"]}

        return [
            (spec("clip_vision_model", mlp, {"type": "input.image", "size": [16, 16]}, layer=-2), None),
            (spec("siglip_vision_model", mlp, output="pooled"), None),
            (spec("dinov2_with_registers", {"mlp_ratio": 2}, mix=True, prefix=True), None),
            (spec("vit", mlp, {"type": "input.video", "frames": 2, "size": [16, 16]}), None),
        ]

    def config_at(self, path: Path) -> dict[str, Any]:
        return {**super().config_at(path), "pixels": _pixels(path)}

    def _model(self, base: Path) -> tuple[Family, dict[str, Any]] | None:
        """The family and its vision config, or None while the weights that bring it are not on this computer.

        Raises:
            WireError: it is of no family.
        """
        config = self.read_config(base)
        if config is None:
            return None
        name = config.get("model_type")
        if name in WHOLE:
            name, config = WHOLE[name], {**(config.get("vision_config") or {}), "pixels": config.get("pixels")}
        if name not in FAMILIES:
            known = ", ".join([*WHOLE, *FAMILIES])
            raise WireError("in", f"the config's `model_type` is {name!r:.40}; it is one of {known}")
        return FAMILIES[name], config

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        image, found = inputs["in"], self._model(base)
        self.check_statistics(image)
        if found is None:
            return value("embedding" if self.output == "pooled" else "tokens")
        family, config = found
        width, channels = size_in(config, "hidden_size") or 768, size_in(config, "num_channels") or 3
        self.block(size_in(config, "num_hidden_layers") or 12)
        if image["channels"] != channels:
            raise WireError("in", f"this model sees {channels} channels, and the image has {image['channels']}")
        patch, size = sides(config, "patch_size", family.patch), (image.size("height"), image.size("width"))
        if size[0] % patch[0] or size[1] % patch[1]:
            raise WireError(
                "in", f"this model cuts patches of {patch[0]} x {patch[1]} pixels; {size[0]} x {size[1]} does not fit"
            )
        if self.output == "pooled":
            self._check_pooled(family, config)
            return self.embedding_of(image, width)
        extra = self._prefix(family, config) if self.prefix else 0
        return self.tokens_of(image, (size[0] // patch[0], size[1] // patch[1]), width, extra)

    def _check_pooled(self, family: Family, config: dict[str, Any]) -> None:
        if self.layer is not None:
            raise WireError("in", "`output: pooled` is of the last layer; leave `layer` out, or take the tokens")
        if not self.mix and family.head == "head" and not config.get("vision_use_head", True):
            raise WireError("in", "this SigLIP has no head that pools; take its tokens")

    def _prefix(self, family: Family, config: dict[str, Any]) -> int:
        """Tokens in front of the patches'."""
        found = config.get("num_register_tokens", family.registers) if family.registers else 0
        return family.prefix + int(found)

    def processor(self, source: Part, base: Path) -> Processor:
        found = self._model(base)
        if found is None:
            raise AssemblerError(f"{self.weights} is not on this computer; run `assembler fetch` on the spec")
        family, config = found
        pixels = config.get("pixels") or {}
        mean, std = pixels.get("mean", family.statistics[0]), pixels.get("std", family.statistics[1])
        return self.pictures(source, mean, std, pixels.get("interpolation", family.interpolation))

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._hf_vision import HfVisionTower

        found = self._model(base)
        if found is None:
            raise AssemblerError(f"{self.weights} is not on this computer; run `assembler fetch` on the spec")
        family, config = found
        config = {key: item for key, item in config.items() if key != "pixels"}
        size = (inputs["in"].size("height"), inputs["in"].size("width"))
        block, front = self.block(size_in(config, "num_hidden_layers") or 12), self._prefix(family, config)
        return HfVisionTower(family, config, size, block, self.mix, self.output == "pooled", front, self.prefix)

    def fill(self, module: nn.Module, path: Path) -> None:
        from components.encoders._hf_vision import HfVisionTower
        from components.encoders._states import fill

        assert isinstance(module, HfVisionTower)
        fill(module.model, path, self.weights, **dict(module.family.options))


def sides(config: dict[str, Any], name: str, default: int) -> tuple[int, int]:
    """A size that a config gives as one side or as (height, width).

    Raises:
        WireError: it is neither.
    """
    found = config.get(name, default)
    pair = tuple(found) if isinstance(found, list | tuple) else (found, found)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise WireError("in", f"the config's `{name}` is {found!r:.40}; it is one whole number from 1, or two")
    return pair


def _pixels(folder: Path) -> dict[str, Any]:
    """How the folder's own image processor scales pixels: `mean`, `std`, `interpolation`, those that it says.

    Raises:
        AssemblerError: it does what an ImageProcessor cannot say.
    """
    file = folder / "preprocessor_config.json"
    found = read_json(file) or read_json(folder / "processor_config.json").get("image_processor") or {}
    pixels = {}
    if found.get("do_rescale", True) and abs(found.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise AssemblerError(f"{file}: `rescale_factor` is {found['rescale_factor']}; set `mean` and `std` yourself")
    if not found.get("do_normalize", True):
        pixels = {"mean": (0.0,), "std": (1.0,)}
    elif "image_mean" in found and "image_std" in found:
        pixels = {"mean": tuple(found["image_mean"]), "std": tuple(found["image_std"])}
    if found.get("resample") in RESAMPLING:
        return {**pixels, "interpolation": RESAMPLING[found["resample"]]}
    return pixels
