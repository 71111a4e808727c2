"""The module of `encoder.whisper`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from assembler.errors import told
from assembler.ragged import Ragged, masked_mean, paired, parted
from components.encoders._states import LayerMix

WINDOW, HOP, RATE = 400, 160, 16_000


class LogMel(nn.Module):
    """Waveform [B, S] -> log-mel [B, mels, S / hop]; Fourier's transform as a convolution, which every runtime has."""

    def __init__(self, mels: int) -> None:
        super().__init__()
        bins = WINDOW // 2 + 1
        exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
        angle = 2 * math.pi / WINDOW * torch.outer(torch.arange(bins, **exact), torch.arange(WINDOW, **exact))
        waves = torch.cat([angle.cos(), -angle.sin()]) * torch.hann_window(WINDOW, **exact)  # [2 * bins, window]
        filters = mel_filter_bank(bins, mels, 0.0, 8000.0, RATE, norm="slaney", mel_scale="slaney")
        self.waves: Tensor
        self.filters: Tensor
        self.register_buffer("waves", waves.float().unsqueeze(1), persistent=False)
        self.register_buffer("filters", torch.tensor(filters.T, dtype=torch.float32, device="cpu"), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(waveform.unsqueeze(1), (WINDOW // 2, WINDOW // 2), mode="reflect")
        real, imaginary = F.conv1d(padded, self.waves, stride=HOP)[..., :-1].chunk(2, dim=1)  # [B, bins, S / hop]
        power = real.square() + imaginary.square()
        log = (self.filters @ power).clamp(min=1e-10).log10()  # [B, mels, S / hop]
        floor = log.amax(dim=(1, 2), keepdim=True) - 8
        return (torch.maximum(log, floor) + 4) / 4


class WhisperTower(nn.Module):
    """Whisper's encoder from the waveform on; a sound shorter than 30 s uses the first positions."""

    def __init__(
        self, config: dict[str, Any], layer: int | None = None, mix: bool = False, pooled: bool = False
    ) -> None:
        super().__init__()
        knobs = {key: item for key, item in config.items() if key not in ("model_type", "architectures", "auto_map")}
        with told("transformers cannot make a Whisper of this config"):
            self.config = WhisperConfig(**knobs)
            self.config._attn_implementation = "sdpa"
            self.encoder = WhisperEncoder(self.config)
        self.mel = LogMel(self.config.num_mel_bins)
        self.layer, self.pooled = layer, pooled
        self.mix = LayerMix(len(self.encoder.layers) + 1) if mix else None

    def forward(self, waveform: Tensor | Ragged) -> Tensor | Ragged:
        """Padding is heard as the silence it is, as Whisper learned it; its tokens are marked as not real."""
        sound, mask = parted(waveform)
        if mask is not None:
            sound = torch.where(mask, sound, 0)
        encoder = self.encoder
        x = F.gelu(encoder.conv1(self.mel(sound)))
        x = F.gelu(encoder.conv2(x)).transpose(1, 2)  # [B, T, D]
        x = x + encoder.embed_positions.weight[: x.shape[1]]
        x = F.dropout(x, encoder.dropout, encoder.training)
        states = [x]
        for layer in encoder.layers[: None if self.layer is None else self.layer + 1]:
            out = layer(x, None)
            x = out[0] if isinstance(out, tuple) else out
            states.append(x)
        if self.layer is None:
            x = states[-1] = encoder.layer_norm(x)
        if self.mix is not None:
            x = self.mix(states)
        tokens = None if mask is None else mask[:, :: 2 * HOP]  # [B, T]: a token is real where it begins in the sound
        return masked_mean(x, tokens) if self.pooled else paired(x, tokens)  # [B, D] or [B, T, D]
