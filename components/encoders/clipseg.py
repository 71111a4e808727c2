"""CLIPSeg: a text says what in a picture is to be marked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from assembler.bundle.manifest import Processor, TextProcessor
from assembler.configs import read_config, size_in
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from assembler.weights import cached, parse_source
from components.encoders._base import WeightedPart
from components.encoders._pictures import PictureEncoder

if TYPE_CHECKING:
    from torch import nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@register
class ClipSeg(PictureEncoder, WeightedPart):
    """Image [B, 3, H, H] and text -> one logit a pixel, [B, 1, H, H], for what the text names (arXiv 2112.10003).

    CLIP's towers read both. The states of three blocks of the vision tower go up through a small transformer, where the
    projected end-of-text token scales and shifts them, and a transposed convolution makes pixels of its tokens. The
    positions are resized to H. Parameters: those of transformers' CLIPSegForImageSegmentation for the config.
    """

    type = "encoder.clipseg"
    accepts = {"image": ("image",), "text": ("text",)}
    reads_text = True

    config: dict[str, Any] | None = Field(None, description="the model's config in transformers' names, if random")
    length: int = Field(77, ge=1, le=8192, description="tokens that a text is cut to")
    tokenizer: str | None = Field(None, description="a tokenizer.json; by default the one beside the weights")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
        words = {"vocab_size": 300, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2}
        config = {
            "vision_config": {**small, "patch_size": 8, "image_size": 24},
            "text_config": {**small, **words},
            "projection_dim": 12, "reduce_dim": 8, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 12,
            "extract_layers": [0, 1, 2],
        }  # fmt: skip
        tokenizer = str(Path(__file__).parent / "example" / "tokenizer.json")
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "words": {"type": "input.text"},
            "part": {"type": cls.type, "config": config, "tokenizer": tokenizer, "length": 12},
        }
        return [({"nodes": nodes, "edges": ["photo -> part.image", "words -> part.text"]}, None)]

    @model_validator(mode="after")
    def _has_words(self) -> ClipSeg:
        if self.weights == "random" and self.tokenizer is None:
            raise ValueError("`weights: random` brings no tokenizer; name a file with `tokenizer`")
        if self.weights != "random" and self.config:
            raise ValueError("`config` is for `weights: random`; the named weights bring their own")
        return self

    def read_config(self, base: Path) -> dict[str, Any] | None:
        """The model's config, or None while the weights that bring it are not on this computer."""
        if self.weights == "random":
            return self.config or {}
        path = cached(parse_source(self.weights), base)
        return None if path is None else read_config(path)

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        image, config = inputs["image"], self.read_config(base) or {}
        self.check_statistics(image)
        patch = size_in(config.get("vision_config") or {}, "patch_size") or 32
        height, width = image["height"], image["width"]
        if image["channels"] != 3 or height != width or not isinstance(height, int) or height % patch:
            raise WireError("image", f"CLIPSeg sees squares of 3 channels, in patches of {patch} pixels a side")
        return value("latent", channels=1, height=height, width=width)

    def processor(self, source: Part, base: Path) -> Processor:
        if "size" in source.model_dump():
            return self.pictures(source, *IMAGENET, "bilinear")
        folder = cached(parse_source(self.weights), base)
        path = base / self.tokenizer if self.tokenizer is not None else (folder or base) / "tokenizer.json"
        return TextProcessor(tokenizer=str(path), length=self.length, pad=0)

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._clipseg import ClipSegTower

        return ClipSegTower(self.read_config(base) or {})

    def fill(self, module: nn.Module, path: Path) -> None:
        from components.encoders._states import fill

        fill(module.model, path, self.weights)
