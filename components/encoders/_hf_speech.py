"""The module of `encoder.hf_speech`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from assembler.errors import told
from assembler.ragged import Ragged, masked_mean, paired, parted
from components.encoders._sound import field
from components.encoders._states import LayerMix

UNUSED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "add_adapter": False}
"""Masking while learning, and the convolutions that some models add behind their encoder."""


class SpeechTower(nn.Module):
    """A wav2vec 2.0 kind of encoder in which padding, and only padding, is left out at every step.

    transformers normalises over the padding where the features have a group norm, and lets data2vec's stack of
    positional convolutions see it; here both read the real samples alone, so that a padded sound is as a bare one.
    """

    def __init__(self, config: dict[str, Any], layer: int | None, mix: bool, pooled: bool, normalise: bool) -> None:
        super().__init__()
        with told(f"transformers cannot make a {config['model_type']} of this config"):
            made = AutoConfig.for_model(**{**config, **UNUSED})
            made._attn_implementation = "eager" if made.model_type == "wavlm" else "sdpa"
            self.model: Any = AutoModel.from_config(made)
        self.layer, self.pooled, self.normalise = layer, pooled, normalise
        self.relative = made.model_type == "wavlm"
        self.mix = LayerMix(made.num_hidden_layers + 1) if mix else None

    def forward(self, waveform: Tensor | Ragged) -> Tensor | Ragged:
        sound, mask = parted(waveform)  # [B, S]
        if self.normalise:
            mean = masked_mean(sound.unsqueeze(-1), mask)  # [B, 1]
            variance = masked_mean((sound - mean).square().unsqueeze(-1), mask)
            sound = (sound - mean) / (variance + 1e-7).sqrt()
        x, tokens = self._features(_cut(sound, mask), mask)  # [B, T, C], [B, T]
        x = self.model.feature_projection(x)
        x = x[0] if isinstance(x, tuple) else x  # [B, T, D]
        x = _cut(x, tokens)
        states = self._states(x + self._positions(x, tokens), tokens)
        x = states[-1] if self.mix is None else self.mix(states)
        return masked_mean(x, tokens) if self.pooled else paired(x, tokens)  # [B, D] or [B, T, D]

    def _features(self, sound: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The convolutions, and which of their outputs hear real samples alone."""
        config, x = self.model.config, sound.unsqueeze(1)  # [B, 1, S]
        for index, block in enumerate(self.model.feature_extractor.conv_layers):
            norm = getattr(block, "layer_norm", None)
            if isinstance(norm, nn.GroupNorm) and mask is not None:
                real = _heard(mask, config.conv_kernel[: index + 1], config.conv_stride[: index + 1])
                x = block.activation(_group_norm(block.conv(x), real, norm))
            else:
                x = block(x)
        return x.transpose(1, 2), None if mask is None else _heard(mask, config.conv_kernel, config.conv_stride)

    def _positions(self, x: Tensor, tokens: Tensor | None) -> Tensor:
        embed = self.model.encoder.pos_conv_embed
        if not hasattr(embed, "layers"):
            return embed(x)
        for layer in embed.layers:
            x = _cut(layer(x.transpose(1, 2)).transpose(1, 2), tokens)
        return x

    def _states(self, x: Tensor, tokens: Tensor | None) -> list[Tensor]:
        """The embeddings and what each block puts out, up to `layer`; the last as the model gives it."""
        encoder, last = self.model.encoder, getattr(self.model.config, "do_stable_layer_norm", False)
        states = [encoder.dropout(x if last else encoder.layer_norm(x))]
        attended = None if tokens is None else tokens | (torch.arange(x.shape[1], device=x.device) == 0)
        bias: Tensor | None = None
        for layer in encoder.layers[: None if self.layer is None else self.layer + 1]:
            if self.relative:
                out, bias = layer(states[-1], attention_mask=attended, position_bias=bias)
            else:
                mask = None if attended is None else attended[:, None, None].expand(-1, 1, x.shape[1], -1)
                out = layer(states[-1], attention_mask=mask)
            states.append(out[0] if isinstance(out, tuple) else out)
        if last and self.layer is None:
            states[-1] = encoder.layer_norm(states[-1])
        return states


def _cut(x: Tensor, mask: Tensor | None) -> Tensor:
    """Zero where there is padding."""
    if mask is None:
        return x
    return torch.where(mask.view(*mask.shape, *[1] * (x.dim() - 2)), x, 0)


def _heard(mask: Tensor, kernels: list[int], strides: list[int]) -> Tensor:
    """Which outputs of these convolutions hear real samples alone: [B, S] -> [B, T]."""
    hears, step = field(kernels, strides)
    padding = F.max_pool1d((~mask).to(torch.float32).unsqueeze(1), hears, step)  # [B, 1, T]
    return padding.squeeze(1) == 0


def _group_norm(x: Tensor, real: Tensor, norm: nn.GroupNorm) -> Tensor:
    """A group norm with one channel a group, over the real steps of [B, C, T] alone."""
    weight = real.to(x.dtype).unsqueeze(1)  # [B, 1, T]
    count = weight.sum(-1, keepdim=True).clamp(min=1)
    mean = (x * weight).sum(-1, keepdim=True) / count
    variance = ((x - mean).square() * weight).sum(-1, keepdim=True) / count
    normed = (x - mean) * (variance + norm.eps).rsqrt()
    return normed * norm.weight.unsqueeze(-1) + norm.bias.unsqueeze(-1)
