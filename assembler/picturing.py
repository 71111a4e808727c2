"""The arrays that a model takes as pictures and words for a person; numpy and Pillow alone, but for the spectrogram."""

from __future__ import annotations

import io
from functools import singledispatch
from pathlib import Path

import numpy as np
from PIL import Image

from assembler.bundle.cells import vocabulary
from assembler.bundle.manifest import (
    ExpressionProcessor,
    ImageProcessor,
    PointsProcessor,
    Processor,
    SoundProcessor,
    TextProcessor,
    VideoProcessor,
)
from assembler.bundle.processor import open_tokenizer

Shown = tuple[str, bytes, tuple[tuple[str, float], ...]]
"""Words, a PNG or nothing, and (name, value) bars."""

TOP = 12
BINS, FLOOR = 80, -80.0
"""Mel bins of a spectrogram, and the dB below its peak at which it is black."""
SIDE = 240
"""Pixels of a drawn cloud, each way."""
RAMP = np.array([[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], np.float64)
"""Colours from least to most, evenly apart."""


def pictured(values: np.ndarray, mask: np.ndarray | None, processor: Processor, base: Path) -> Shown:
    """One sample's array, as its processor made it, for a person; `mask` [T] tells the real positions."""
    real = np.ones(values.shape[:1], bool) if mask is None else mask
    return _shown(processor, values, real, base)


@singledispatch
def _shown(processor: Processor, values: np.ndarray, real: np.ndarray, base: Path) -> Shown:
    raise TypeError(f"no picture of {type(processor).__name__}")


@_shown.register
def _image(processor: ImageProcessor, values: np.ndarray, real: np.ndarray, base: Path) -> Shown:
    height, width = processor.size
    if not processor.crops:
        return f"{width} x {height} pixels, {processor.fit}", _png([_pixels(values, processor)]), ()
    pictures = [_pixels(one, processor) for one in values[real]]
    return f"the whole and {len(pictures) - 1} crops of {width} x {height} pixels", _png(pictures), ()


@_shown.register
def _video(processor: VideoProcessor, values: np.ndarray, real: np.ndarray, base: Path) -> Shown:
    height, width = processor.picture.size
    pictures = [_pixels(one, processor.picture) for one in values[real]]
    return f"{len(pictures)} of {processor.frames} frames, {width} x {height} pixels", _png(pictures), ()


def _pixels(values: np.ndarray, processor: ImageProcessor) -> np.ndarray:
    """[C, H, W] as the model takes it -> uint8 [H, W, 3]."""
    mean, std = np.asarray(processor.mean, np.float32), np.asarray(processor.std, np.float32)
    pixels = np.clip((values.transpose(1, 2, 0) * std + mean) * 255, 0, 255).round().astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


@_shown.register
def _sound(processor: SoundProcessor, values: np.ndarray, real: np.ndarray, base: Path) -> Shown:
    length, rate = int(real.sum()), processor.rate
    words = f"{length / rate:.2f} s of at most {processor.samples / rate:g} s, {rate:,} samples a second"
    return words, _png([_coloured(spectrogram(values[:length], rate))[::-1]]), ()


def spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Log-mel spectrogram [bins, frames] in dB below its peak: windows of 25 ms, 10 ms apart."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    frame, hop = max(16, rate // 40), max(4, rate // 100)
    size = 1 << (frame - 1).bit_length()
    bins = min(BINS, size // 8)
    filters = mel_filter_bank(size // 2 + 1, bins, 0.0, rate / 2, rate, norm="slaney", mel_scale="slaney")
    padded = np.pad(samples, (0, max(0, frame - len(samples))))
    window = window_function(frame, "hann")
    power = spectrogram(
        padded, window, frame, hop, fft_length=size, power=2.0, mel_filters=filters, pad_mode="constant"
    )
    power = np.maximum(power, 1e-10)
    return np.maximum(10 * np.log10(power / power.max()), FLOOR)


@_shown.register
def _cloud(processor: PointsProcessor, values: np.ndarray, real: np.ndarray, base: Path) -> Shown:
    points = values[real]
    extra = f", {processor.extra} more numbers each" if processor.extra else ""
    low, high = points[:, :3].min(0), points[:, :3].max(0)
    spans = " x ".join(f"{side:.2f}" for side in high - low)
    return f"{len(points):,} points within {spans}{extra}", _png([_drawn(points[:, :3])]), ()


def _drawn(points: np.ndarray) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3]: the cloud from above at an angle, what is nearer brighter and in front."""
    turn, tilt = np.deg2rad(35.0), np.deg2rad(25.0)
    x, y, z = (points - (points.max(0) + points.min(0)) / 2).T
    right, deep = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    up, near = z * np.cos(tilt) + deep * np.sin(tilt), z * np.sin(tilt) - deep * np.cos(tilt)
    scale = (SIDE / 2 - 6) / max(float(np.hypot(right, up).max()), 1e-9)
    order = np.argsort(near, kind="stable")
    column, row = (SIDE / 2 + right * scale).astype(int)[order], (SIDE / 2 - up * scale).astype(int)[order]
    span = float(np.ptp(near)) or 1.0
    colours = _coloured(((near - near.min()) / span * 0.7 + 0.3)[order][None], (0.0, 1.0))[0]
    picture = np.full((SIDE, SIDE, 3), 18, np.uint8)
    for down in (0, 1):
        for across in (0, 1):
            picture[row + down, column + across] = colours
    return picture


@_shown.register
def _cell(processor: ExpressionProcessor, values: np.ndarray, real: np.ndarray, base: Path) -> Shown:
    genes = vocabulary(processor, base)
    order = np.argsort(-values, kind="stable")[:TOP]
    bars = tuple((genes[i].split()[0], float(values[i])) for i in order if values[i] > 0)
    words = (
        f"{int((values > 0).sum()):,} of {len(genes):,} genes above 0, normalise: {processor.normalise}; the highest"
    )
    return words, b"", bars


@_shown.register
def _text(processor: TextProcessor, values: np.ndarray, real: np.ndarray, base: Path) -> Shown:
    tokenizer = open_tokenizer(str((base / processor.tokenizer).resolve()), processor.length)
    ids = values[real].tolist()
    return f"{tokenizer.decode(ids, skip_special_tokens=False)!r}, {len(ids)} of {processor.length} tokens", b"", ()


def _coloured(values: np.ndarray, bounds: tuple[float, float] | None = None) -> np.ndarray:
    """Numbers [H, W] -> uint8 [H, W, 3] along the ramp, from the least to the most or between `bounds`."""
    low, high = bounds or (float(values.min()), float(values.max()))
    at = np.clip((values - low) / ((high - low) or 1.0), 0, 1) * (len(RAMP) - 1)
    return np.stack([np.interp(at, np.arange(len(RAMP)), channel) for channel in RAMP.T], -1).astype(np.uint8)


def _png(pictures: list[np.ndarray]) -> bytes:
    """Pictures uint8 [H, W, 3] side by side."""
    held = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1)).save(held, "png")
    return held.getvalue()
