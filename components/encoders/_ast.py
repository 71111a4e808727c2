"""The module of `encoder.ast`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ASTConfig, ASTModel
from transformers.audio_utils import mel_filter_bank

from assembler.errors import told
from assembler.ragged import Ragged, masked_mean, paired, parted
from components.encoders._sound import RATE
from components.encoders._states import LayerMix

WINDOW, HOP, FOURIER = 400, 160, 512
EMPHASIS, FLOOR = 0.97, 1.192092955078125e-07


def _waves() -> np.ndarray:
    """Kaldi's steps from a frame to its spectrum as one matrix [2 * bins, window], for all of them are linear.

    The mean is taken off, a sample loses 0.97 of the one before it (the first, of itself), a Hann window, Fourier.
    """
    centre = np.eye(WINDOW) - 1 / WINDOW
    emphasis = np.eye(WINDOW) - EMPHASIS * np.eye(WINDOW, k=-1)
    emphasis[0, 0] = 1 - EMPHASIS
    angle = 2 * math.pi / FOURIER * np.outer(np.arange(FOURIER // 2 + 1), np.arange(WINDOW))
    return np.concatenate([np.cos(angle), -np.sin(angle)]) * np.hanning(WINDOW) @ emphasis @ centre


class FilterBank(nn.Module):
    """Waveform [B, S] -> Kaldi's log filterbank [B, 1 + (S - 400) // 160, mels]."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        filters = mel_filter_bank(
            num_frequency_bins=FOURIER // 2 + 1,
            num_mel_filters=mels,
            min_frequency=20,
            max_frequency=RATE // 2,
            sampling_rate=RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )  # [bins, mels]
        self.waves: Tensor
        self.filters: Tensor
        exact: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
        self.register_buffer("waves", torch.tensor(_waves(), **exact).unsqueeze(1), persistent=False)
        self.register_buffer("filters", torch.tensor(filters.T, **exact), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        real, imaginary = F.conv1d(waveform.unsqueeze(1), self.waves, stride=HOP).chunk(2, dim=1)  # [B, bins, T]
        power = real.square() + imaginary.square()
        return (self.filters @ power).clamp(min=FLOOR).log().transpose(1, 2)


class AstTower(nn.Module):
    """An Audio Spectrogram Transformer from the waveform on."""

    def __init__(
        self,
        config: dict[str, Any],
        layer: int | None,
        mix: bool,
        pooled: bool,
        prefix: bool,
        scale: tuple[float, float] | None,
    ) -> None:
        super().__init__()
        knobs = {key: item for key, item in config.items() if key not in ("model_type", "architectures", "auto_map")}
        with told("transformers cannot make an AST of this config"):
            made = ASTConfig(**knobs)
            made._attn_implementation = "sdpa"
            self.model: Any = ASTModel(made)
        self.bank = FilterBank(made.num_mel_bins)
        self.layer, self.pooled, self.prefix, self.scale = layer, pooled, prefix, scale
        self.mix = LayerMix(made.num_hidden_layers + 1) if mix else None

    def forward(self, waveform: Tensor | Ragged) -> Tensor | Ragged:
        """Padding is heard as the zeros that the model learned to take for it; its tokens are marked as not real."""
        sound, mask = parted(waveform)
        bank = self.bank(sound)  # [B, frames, mels]
        frames = None
        if mask is not None:
            # A frame is real where all of its samples are.
            frames = F.max_pool1d((~mask).to(bank.dtype).unsqueeze(1), WINDOW, HOP).squeeze(1) == 0  # [B, frames]
            bank = torch.where(frames.unsqueeze(-1), bank, 0)
        length = self.model.config.max_length
        bank = F.pad(bank, (0, 0, 0, length - bank.shape[1]))  # [B, length, mels]
        if self.scale is not None:
            mean, deviation = self.scale
            bank = (bank - mean) / (2 * deviation)
        x = self._read(bank)  # [B, 2 + rows * columns, D]
        tokens = None if frames is None else self._tokens(frames)
        if self.pooled:
            # The model's own head reads its two summary tokens; a layer's are not made for that, so its mean is taken.
            inner = self.layer is not None
            return masked_mean(x[:, 2:], tokens) if inner else x[:, :2].mean(1)  # [B, D]
        if not self.prefix:
            return paired(x[:, 2:], tokens)
        return paired(x, None if tokens is None else F.pad(tokens, (2, 0), value=True))

    def _read(self, bank: Tensor) -> Tensor:
        states = [self.model.embeddings(bank)]
        for layer in self.model.layers[: None if self.layer is None else self.layer + 1]:
            states.append(layer(states[-1], None))
        if self.layer is None:
            states[-1] = self.model.layernorm(states[-1])
        return states[-1] if self.mix is None else self.mix(states)

    def _tokens(self, frames: Tensor) -> Tensor:
        """A token is real where its patch begins in the sound: [B, frames] -> [B, rows * columns]."""
        config = self.model.config
        rows, columns = self.model.embeddings.get_shape(config)
        whole = F.pad(frames, (0, config.max_length - frames.shape[1]))
        starts = whole[:, : columns * config.time_stride : config.time_stride]  # [B, columns]
        return starts.repeat(1, rows)
