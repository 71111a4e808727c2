"""Any2Point: a text, vision or audio transformer that reads points."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from assembler.configs import size_in
from assembler.errors import AssemblerError
from assembler.part import WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._base import EncoderPart
from components.encoders._points import PointsEncoder
from components.encoders.timm import facts_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Source:
    """A kind of model of transformers: its classes, the width of its default config, and its table of positions.

    `table` is the path of the table, and `front` the rows in it before the grid's.
    """

    sense: Literal["text", "vision", "audio"]
    config: str
    model: str
    table: str
    front: int = 0
    width: int = 768
    options: tuple[tuple[str, Any], ...] = ()


LEARNED, WHOLE_TABLE = "embeddings.position_embedding.weight", "embeddings.position_embeddings"
BARE = (("add_pooling_layer", False),)
SOURCES = {
    "clip_text_model": Source("text", "CLIPTextConfig", "CLIPTextModel", LEARNED, width=512),
    "siglip_text_model": Source("text", "SiglipTextConfig", "SiglipTextModel", LEARNED),
    "clip_vision_model": Source("vision", "CLIPVisionConfig", "CLIPVisionModel", LEARNED, 1),
    "siglip_vision_model": Source("vision", "SiglipVisionConfig", "SiglipVisionModel", LEARNED),
    "dinov2": Source("vision", "Dinov2Config", "Dinov2Model", WHOLE_TABLE, 1),
    "dinov2_with_registers": Source("vision", "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", WHOLE_TABLE, 1),
    "vit": Source("vision", "ViTConfig", "ViTModel", WHOLE_TABLE, 1, options=BARE),
    "audio-spectrogram-transformer": Source("audio", "ASTConfig", "ASTModel", WHOLE_TABLE, 2),
}
GUIDANCE = {"text": 0.3, "vision": 0.7, "audio": 0.5}
"""c of the paper's code for each kind of source."""


@register
class Any2Point(PointsEncoder, EncoderPart):
    """Points [B, N, 3 + C] -> tokens [B, T, width] of a frozen text, vision or audio transformer, or [B, 2 * width].

    A tokenizer (three stages of farthest point sampling, neighbours, offset encoding and residual layers, a Point-PN)
    makes T = `tokens` of 4 T, 2 T and T centres p. Virtual projection: p is turned into six views; each gives a place
    in the transformer's own table of positions, on a line for text, in a picture for vision and audio, where the table
    is interpolated; the mean over the views is added before every block, to a learned [CLS] its own position. In a
    block x <- x + attn(norm(x)); f = mlp(norm(x)); x <- x + f + `scale` * W_up quick_gelu(W_down f), of rank r; then
    x <- x + `guidance` * sum_j a_j x_j: x3d is the maximum and mean over the tokens of a voxel, normalised; x_j the
    mean over a view's cell of a small attention within it, normalised; a_j follows (cos(x_j, x3d) + 1) / 2. At the end
    a norm that begins as the transformer's own. `output: pooled` joins [CLS] and the tokens' maximum; `prefix` keeps
    [CLS]. The paper freezes the transformer: let a stage train NODE.guide. The transformer is that of `config` or of
    the weights: CLIP's or SigLIP's text or vision tower (`tower`, in a folder with both), DINOv2, ViT, or AST for
    sound; or `model`, one of timm's. It is no identity at the start. Source: arXiv 2404.07989. Parameters: the
    transformer's, and in NODE.guide, with width D, L blocks, c = 3 + C, e = `embed`, R(w, i) = 2 w i + 3 (w + i):
    c e + 2 e + 2 R(2 e, e) + R(4 e, 2 e) + R(8 e, 32) + (8 e D + D where 8 e is not D) + L (2 D r + r + D + 14 D)
    + 6 (51 D + 36) + 4 D; with `mix` also L + 2.
    """

    type = "encoder.any2point"

    model: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]{0,99}$", description="timm's name of a ViT, in its place")
    tower: Literal["text", "vision"] = Field("text", description="which tower of a whole CLIP or SigLIP")
    tokens: int = Field(128, ge=1, le=4096, description="centres of the last stage; the cloud has 4 times as many")
    neighbours: int = Field(81, ge=1, le=1024, description="points of a group")
    embed: int = Field(96, ge=3, le=4096, multiple_of=3, description="width of the tokenizer's first stage")
    rank: int = Field(16, ge=1, le=4096, description="inner width of the bottlenecks")
    scale: float = Field(0.3, ge=0, le=100, description="of the bottlenecks")
    guidance: float | None = Field(None, ge=0, le=100, description="of the views; text 0.3, vision 0.7, audio 0.5")
    voxel: float = Field(0.08, gt=0, le=1e6, description="side of a cell in space; the cloud's radius is 1")
    cell: float = Field(2.0, gt=0, le=1e6, description="side of a cell in a view, in positions of the table")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the bottlenecks while they learn")
    prefix: bool = Field(False, description="keep the [CLS] token, in front")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        config = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        text = {**config, "model_type": "clip_text_model", "vocab_size": 40, "max_position_embeddings": 12}
        text |= {"bos_token_id": 1, "eos_token_id": 2}
        image = {**config, "model_type": "dinov2", "image_size": 16, "patch_size": 4, "mlp_ratio": 2}
        sizes: dict[str, Any] = {"tokens": 8, "neighbours": 4, "embed": 3, "rank": 2, "voxel": 1.0}
        return [
            (cls.after_points(config=text, prefix=True, **sizes), None),
            (cls.after_points(config=image, output="pooled", extra=1, short="repeat", **sizes), None),
        ]

    @model_validator(mode="after")
    def _one_transformer(self) -> Self:
        if self.model and self.config:
            raise ValueError("`model` names one of timm's and `config` one of transformers'; give one of them")
        return self

    def pieces(self) -> tuple[str, ...]:
        return ("guide", *super().pieces())

    def source(self, base: Path) -> tuple[Source, dict[str, Any]] | None:
        """The kind of transformer and its config, or None while the weights that bring it are not on this computer.

        Raises:
            WireError: it is of no kind that this part reads.
        """
        config = self.read_config(base)
        if config is None:
            return None
        name = str(config.get("model_type"))
        if name in ("clip", "siglip"):
            name, config = f"{name}_{self.tower}_model", dict(config.get(f"{self.tower}_config") or {})
        if name not in SOURCES:
            raise WireError("in", f"the config's `model_type` is {name!r:.40}; it is one of {', '.join(SOURCES)}")
        return SOURCES[name], config

    def _sizes(self, base: Path) -> tuple[int, int] | None:
        """Width and number of blocks of the transformer."""
        if self.model:
            facts = facts_of(self.model)
            if not facts["fixed"]:
                raise WireError("in", f"timm's {self.model} has no table of positions; name a ViT")
            return facts["width"], len(facts["layers"])
        found = self.source(base)
        if found is None:
            return None
        return size_in(found[1], "hidden_size") or found[0].width, size_in(found[1], "num_hidden_layers") or 12

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        self.check_counts(inputs["in"], tokens=4 * self.tokens)
        if self.neighbours > 2 * self.tokens:
            raise WireError("in", f"`neighbours` is {self.neighbours}; the last stage has {2 * self.tokens} points")
        try:
            sizes = self._sizes(base)
        except AssemblerError as error:
            raise WireError("in", str(error)) from error
        if sizes is None:
            return value("embedding" if self.output == "pooled" else "tokens")
        self.block(sizes[1])
        if self.output == "pooled":
            return value("embedding", width=2 * sizes[0])
        return value("tokens", inputs["in"].ragged, tokens=self.tokens + self.prefix, width=sizes[0])

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._any2point import Any2PointTower, hf_host, timm_host

        if self.model:
            sense, (host, table) = "vision", timm_host(self.model)
        else:
            found = self.source(base)
            if found is None:
                raise AssemblerError(f"{self.weights} is not on this computer; run `assembler fetch` on the spec")
            sense, (host, table) = found[0].sense, hf_host(*found)
        sizes = self._sizes(base)
        assert sizes is not None
        knobs = {name: getattr(self, name) for name in ("tokens", "neighbours", "embed", "rank", "dropout")}
        reading = {name: getattr(self, name) for name in ("scale", "voxel", "cell", "prefix")}
        guidance = GUIDANCE[sense] if self.guidance is None else self.guidance
        channels, pooled = inputs["in"].size("channels"), self.output == "pooled"
        knobs |= {"channels": channels, "width": sizes[0], "depth": sizes[1]}
        reading |= {"guidance": guidance, "layer": self.block(sizes[1]), "mix": self.mix, "pooled": pooled}
        return Any2PointTower(host, table, knobs, **reading)

    def load(self, module: nn.Module, base: Path) -> None:
        super().load(module, base)
        module.materialise()  # type: ignore[operator]

    def fill(self, module: nn.Module, path: Path) -> None:
        host: Any = module.host
        if self.model:
            from components.encoders._timm import load_tower

            load_tower(host, self.state_at(path), f"{self.model} from {self.weights}")
        else:
            from components.encoders._states import fill

            options = next(dict(kind.options) for kind in SOURCES.values() if kind.model == type(host).__name__)
            fill(host, path, self.weights, **options)
