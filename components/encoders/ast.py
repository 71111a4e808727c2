"""The Audio Spectrogram Transformer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from assembler.bundle.manifest import Processor
from assembler.configs import read_json, size_in
from assembler.errors import AssemblerError
from assembler.part import Part, WireError
from assembler.registry import register
from assembler.values import Dim, Value, value
from components.encoders._base import EncoderPart
from components.encoders._sound import RATE, sound_processor, tokens_of

if TYPE_CHECKING:
    from torch import nn

WINDOW, HOP = 400, 160
MEAN, DEVIATION = -4.2677393, 4.5689974
DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_mel_bins": 128,
    "max_length": 1024,
    "patch_size": 16,
    "frequency_stride": 10,
    "time_stride": 10,
}
"""What transformers' ASTConfig takes for a size that a config leaves out."""


@register
class Ast(EncoderPart):
    """Waveform [B, S] at 16 kHz -> log filterbank [B, frames, mels] -> tokens [B, rows * columns, width].

    Kaldi's filterbank (frames of 25 ms every 10 ms) is taken inside the module, scaled as (x - mean) / (2 std), and cut
    into patches that overlap; rows of frequency follow one another, rows = (mels - patch) // stride + 1, columns the
    same of `max_length` frames. The model has a position for each, so a shorter sound is padded as it was in learning;
    patches that begin after its end are marked as not real. `output: pooled` gives the mean of the model's two summary
    tokens, or of the real ones at a `layer`; `prefix` keeps those two, in front. Source: arXiv 2104.01778.
    Parameters: those of transformers' ASTModel for the config; with `mix` also layers + 2.
    """

    type = "encoder.ast"
    accepts = {"in": ("waveform",)}
    masks = "own"

    prefix: bool = Field(False, description="keep the class and distillation tokens, in front")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        width, hidden, layers, patch, mels, length = 16, 32, 2, 8, 16, 40
        config = {
            "hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2,
            "patch_size": patch, "frequency_stride": 8, "time_stride": 4, "num_mel_bins": mels, "max_length": length,
        }  # fmt: skip

        def spec(**knobs: Any) -> dict[str, Any]:
            nodes = {
                "sound": {"type": "input.audio", "seconds": 0.4},
                "part": {"type": cls.type, "config": config, **knobs},
            }
            return {"nodes": nodes, "edges": ["sound -> part"]}

        patches = (mels // patch) * ((length - patch) // 4 + 1)
        embeddings = (2 + 2 + patches) * width + patch * patch * width + width
        layer = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
        count = embeddings + layers * layer + 2 * width
        return [
            (spec(), count),
            (spec(mix=True, prefix=True), count + layers + 2),
            (spec(output="pooled"), count),
            (spec(layer=0, output="pooled"), None),
        ]

    def config_at(self, path: Path) -> dict[str, Any]:
        return {**super().config_at(path), "scale": _scale(path / "preprocessor_config.json")}

    def _sizes(self, config: dict[str, Any]) -> dict[str, int]:
        return {name: size_in(config, name) or default for name, default in DEFAULTS.items()}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        samples, config = inputs["in"]["samples"], self.read_config(base)
        if not isinstance(samples, int) or config is None:
            return value("embedding" if self.output == "pooled" else "tokens")
        sizes = self._sizes(config)
        frames, longest = tokens_of(samples, [WINDOW], [HOP]), sizes["max_length"]
        if not 1 <= frames <= longest:
            most = (HOP * (longest - 1) + WINDOW) / RATE
            raise WireError("in", f"this model hears {WINDOW / RATE:g} to {most:g} s; change `seconds`")
        rows = tokens_of(sizes["num_mel_bins"], [sizes["patch_size"]], [sizes["frequency_stride"]])
        columns = tokens_of(longest, [sizes["patch_size"]], [sizes["time_stride"]])
        self.block(sizes["num_hidden_layers"])
        if self.output == "pooled":
            return value("embedding", width=sizes["hidden_size"])
        tokens = rows * columns + 2 * self.prefix
        facts = {} if self.prefix else {"grid": (rows, columns)}
        return value("tokens", ragged=inputs["in"].ragged, facts=facts, tokens=tokens, width=sizes["hidden_size"])

    def processor(self, source: Part, base: Path) -> Processor:
        return sound_processor(source, "AST")

    def build(self, inputs: dict[str, Value], output: Value, base: Path) -> nn.Module:
        from components.encoders._ast import AstTower

        config = dict(self.read_config(base) or {})
        scale = config.pop("scale", (MEAN, DEVIATION))
        block = self.block(self._sizes(config)["num_hidden_layers"])
        return AstTower(config, block, self.mix, self.output == "pooled", self.prefix, scale)

    def fill(self, module: nn.Module, path: Path) -> None:
        from components.encoders._states import fill

        fill(module.model, path, self.weights)


def _scale(file: Path) -> tuple[float, float] | None:
    """Mean and deviation of the filterbank that a model learned with; None where it took it as it is."""
    found = read_json(file)
    mean, deviation = found.get("mean", MEAN), found.get("std", DEVIATION)
    if not isinstance(mean, int | float) or not isinstance(deviation, int | float) or not deviation:
        raise AssemblerError(f"{file}: `mean` and `std` are numbers, and `std` is not 0; fetch it again")
    return (float(mean), float(deviation)) if found.get("do_normalize", True) else None
