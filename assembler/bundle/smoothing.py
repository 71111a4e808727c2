"""Activations made easier to round: what is large in a channel goes from the activations into the weights.

x W^T = (x / s) (W s)^T for any s > 0 a channel. Where x comes from a norm, from the values of attention or from the
gated product of an MLP, 1 / s goes into the weights before it, so that nothing more is computed (SmoothQuant,
arXiv 2211.10438, here also before the last matrices of attention and MLP).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from assembler.bundle.architecture import PATHS, Architecture

ALPHA = 0.6
"""How much of an activation's range goes to the weights: s = max|x|^alpha / max|W|^(1 - alpha)."""
Peaks = Mapping[str, np.ndarray]
"""A linear's canonical path -> the largest |x| that it was given in each of its inputs, [in]."""


def smoothed(shape: Architecture, weights: Mapping[str, np.ndarray], peaks: Peaks) -> dict[str, np.ndarray]:
    """The weights of the same decoder with activations that differ less from channel to channel."""
    found = dict(weights)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        q, k, v, o, gate, up, down = (f"{prefix}.{PATHS[n]}" for n in ("q", "k", "v", "o", "gate", "up", "down"))
        before = [f"{prefix}.{shape.norms[0]}", f"{prefix}.{shape.norms[-1]}"]
        for norm, readers in zip(before, ([q, k, v], [gate, up] if shape.gated else [up]), strict=True):
            scale = _scale(peaks[readers[0]], _largest(found, readers))
            _divide(found, norm, scale)
            _multiply(found, readers, scale)
        if shape.gated:  # what an activation gives cannot be scaled before it
            scale = _scale(peaks[down], _largest(found, [down]))
            _divide(found, up, scale)
            _multiply(found, [down], scale)
        groups = (shape.kv_heads, shape.heads // shape.kv_heads, shape.head_size)
        parts = (x.reshape(groups).max(1).reshape(-1) for x in (peaks[o], _largest(found, [o])))
        scale = _scale(*parts)  # one for the query heads that share a value
        _divide(found, v, scale)
        _multiply(found, [o], np.repeat(scale.reshape(groups[0], 1, -1), groups[1], 1).reshape(-1))
    return found


def _scale(peaks: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """s of every channel, 1 in the geometric mean."""
    tiny = 1e-5
    s = np.log(np.maximum(peaks, tiny)) * ALPHA - np.log(np.maximum(largest, tiny)) * (1 - ALPHA)
    return np.exp(s - s.mean()).astype(np.float32)


def _largest(weights: Mapping[str, np.ndarray], paths: Sequence[str]) -> np.ndarray:
    """max |W| of every input of linears that read the same."""
    return np.max([np.abs(weights[f"{path}.weight"]).max(0) for path in paths], axis=0)


def _multiply(weights: dict[str, np.ndarray], paths: Sequence[str], scale: np.ndarray) -> None:
    for path in paths:
        weights[f"{path}.weight"] = weights[f"{path}.weight"] * scale


def _divide(weights: dict[str, np.ndarray], path: str, scale: np.ndarray) -> None:
    """What comes out of a norm or a linear, by `scale`."""
    for name in (f"{path}.weight", f"{path}.bias"):
        if name in weights:
            weights[name] = (weights[name].T / scale).T
