"""Whisper's encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assembler.bundle.manifest import Processor
from assembler.configs import size_in
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._base import EncoderPart
from components.encoders._sound import RATE, sound_processor
from components.encoders._whisper_weights import whisper_config, whisper_state

if TYPE_CHECKING:
    from torch import Tensor, nn

HOP = 160
DEFAULTS = {"d_model": 384, "encoder_layers": 4, "num_mel_bins": 80, "max_source_positions": 1500}
"""What transformers' WhisperConfig takes for a size that a config leaves out."""


@register
class WhisperEncoder(EncoderPart):
    """Waveform [B, S] at 16 kHz -> log-mel [B, mels, S / 160] -> tokens [B, S / 320, width], 50 a second.

    The log-mel spectrogram (Hann window of 400, hop of 160, Slaney filters, clipped 8 below its maximum) is taken
    inside the module, so that it is the same wherever the model runs. Sounds of up to 30 s; the positions are those of
    the first S / 320 tokens. Weights: a folder of transformers or of CTranslate2 (as faster-whisper ships it), a
    checkpoint of openai-whisper (.pt), or `random` with `config`. Source: arXiv 2212.04356. Parameters: those of
    transformers' WhisperEncoder for the config; with `mix` also layers + 2.
    """

    type = "encoder.whisper"
    accepts = {"in": ("waveform",)}
    masks = "own"

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        width, hidden, layers, mels, positions = 16, 32, 2, 80, 50
        sizes = {"d_model": width, "encoder_ffn_dim": hidden, "encoder_layers": layers, "encoder_attention_heads": 2}
        config = {**sizes, "num_mel_bins": mels, "max_source_positions": positions}

        def spec(**knobs: Any) -> dict[str, Any]:
            nodes = {
                "sound": {"type": "input.audio", "seconds": 0.5},
                "part": {"type": cls.type, "config": config, **knobs},
            }
            return {"nodes": nodes, "edges": ["sound -> part"]}

        convolutions = 3 * width * (mels + width) + 2 * width
        attention = 4 * width * width + 3 * width  # k has no bias
        layer = attention + 2 * width * hidden + hidden + width + 4 * width
        count = convolutions + positions * width + layers * layer + 2 * width
        mixed = count + layers + 2
        return [(spec(), count), (spec(mix=True, output="pooled"), mixed), (spec(layer=0), None)]

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        samples, config = inputs["in"]["samples"], self.read_config(base)
        if not isinstance(samples, int) or config is None:
            return value("tokens")
        sizes = {name: size_in(config, name) or default for name, default in DEFAULTS.items()}
        if samples % (2 * HOP):
            raise WireError("in", f"{samples} samples are no whole number of tokens of {2 * HOP}; change `seconds`")
        if samples // (2 * HOP) > sizes["max_source_positions"]:
            longest = sizes["max_source_positions"] * 2 * HOP / RATE
            raise WireError("in", f"this Whisper hears at most {longest:g} s; make `seconds` no more")
        self.block(sizes["encoder_layers"])
        if self.output == "pooled":
            return value("embedding", width=sizes["d_model"])
        tokens, rate = samples // (2 * HOP), RATE / (2 * HOP)
        ragged = inputs["in"].ragged
        return value("tokens", ragged=ragged, facts={"rate": rate}, tokens=tokens, width=sizes["d_model"])

    def processor(self, source: Part, base: Path) -> Processor:
        return sound_processor(source, "Whisper")

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._whisper import WhisperTower

        config = self.read_config(base) or {}
        block = self.block(size_in(config, "encoder_layers") or DEFAULTS["encoder_layers"])
        return WhisperTower(config, block, self.mix, self.output == "pooled")

    def config_at(self, path: Path) -> dict[str, Any]:
        return whisper_config(path)

    def state_at(self, path: Path) -> dict[str, Tensor]:
        return whisper_state(path)

    def place(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        from components.encoders._states import place_exactly

        place_exactly(module.encoder, state, ("encoder.", ""), self.weights)  # type: ignore[arg-type]
