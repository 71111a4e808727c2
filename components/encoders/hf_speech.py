"""Speech encoders of the wav2vec 2.0 kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.bundle.manifest import Processor
from assembler.configs import read_json, size_in
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._base import EncoderPart
from components.encoders._sound import RATE, field, sound_processor, tokens_of

if TYPE_CHECKING:
    from torch import nn

MODELS = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")
KERNELS, STRIDES, WIDTH, LAYERS = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 768, 12
"""What transformers takes where a config leaves these out."""


@register
class HfSpeech(EncoderPart):
    """Waveform [B, S] at 16 kHz -> tokens [B, T, width] of wav2vec 2.0, HuBERT, WavLM or data2vec-audio.

    A stack of convolutions without padding makes a token of every `prod(stride)` samples (320: 50 a second) from the
    400 that it hears, T = floor((S - 400) / 320) + 1; a transformer reads them. The sound is brought to zero mean and
    unit variance first where the model learned so (`normalise`). Padding is left out of every mean, norm and attention:
    the tokens of a padded sound are those of the bare one. While it learns, neither time nor layers are dropped at
    random. Sources: arXiv 2006.11477, 2106.07447, 2110.13900, 2202.03555. Parameters: those of transformers' model for
    the config, without masking and adapter; with `mix` also layers + 2.
    """

    type = "encoder.hf_speech"
    accepts = {"in": ("waveform",)}
    masks = "own"

    normalise: bool | None = Field(None, description="zero mean, unit variance; by default as the weights' own say")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        small = {
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "conv_dim": [8, 8, 8], "conv_kernel": [10, 3, 2], "conv_stride": [5, 4, 4], "num_feat_extract_layers": 3,
            "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
        }  # fmt: skip
        data2vec = {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}

        def spec(model: str, more: dict[str, Any], **knobs: Any) -> dict[str, Any]:
            config = {"model_type": model, **small, **more}
            nodes = {
                "sound": {"type": "input.audio", "seconds": 0.2},
                "part": {"type": cls.type, "config": config, **knobs},
            }
            return {"nodes": nodes, "edges": ["sound -> part"]}

        stable = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
        return [
            (spec("wav2vec2", {}), None),
            (spec("hubert", stable, mix=True, output="pooled"), None),
            (spec("wavlm", stable, layer=-1), None),
            (spec("data2vec-audio", data2vec, normalise=False), None),
        ]

    def config_at(self, path: Path) -> dict[str, Any]:
        found = super().config_at(path)
        return {**found, "do_normalize": read_json(path / "preprocessor_config.json").get("do_normalize", True)}

    def _stack(self, config: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Kernels and strides of the convolutions."""
        if config.get("model_type") not in MODELS:
            have = repr(config.get("model_type"))
            raise WireError("in", f"the config's `model_type` is {have:.40}; it is one of {', '.join(MODELS)}")
        found = (config.get("conv_kernel", KERNELS), config.get("conv_stride", STRIDES))
        numbers = all(isinstance(x, list | tuple) and all(isinstance(n, int) and n > 0 for n in x) for x in found)
        if not numbers or len(found[0]) != len(found[1]):
            raise WireError("in", "the config's `conv_kernel` and `conv_stride` are equally many whole numbers from 1")
        return tuple(found[0]), tuple(found[1])

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        samples, config = inputs["in"]["samples"], self.read_config(base)
        if not isinstance(samples, int) or config is None:
            return value("embedding" if self.output == "pooled" else "tokens")
        stack = self._stack(config)
        width = size_in(config, "hidden_size") or WIDTH
        self.block(size_in(config, "num_hidden_layers") or LAYERS)
        hears, step = field(*stack)
        if samples < hears:
            raise WireError("in", f"a token hears {hears} samples, and the sound has {samples}; make `seconds` more")
        if self.output == "pooled":
            return value("embedding", width=width)
        facts = {"rate": RATE / step}
        return value("tokens", ragged=inputs["in"].ragged, facts=facts, tokens=tokens_of(samples, *stack), width=width)

    def processor(self, source: Part, base: Path) -> Processor:
        return sound_processor(source, "this encoder")

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._hf_speech import SpeechTower

        config = dict(self.read_config(base) or {})
        learned = config.pop("do_normalize", True)
        normalise = learned if self.normalise is None else self.normalise
        block = self.block(size_in(config, "num_hidden_layers") or LAYERS)
        return SpeechTower(config, block, self.mix, self.output == "pooled", normalise)

    def fill(self, module: nn.Module, path: Path) -> None:
        from components.encoders._states import fill

        fill(module.model, path, self.weights)
