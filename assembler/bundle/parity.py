"""How far the ONNX graphs are from the torch modules they came from."""

from typing import Any

import numpy as np

LIMITS = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2, "int4": 0.5}
"""The largest relative error of a slot's graph, by precision. What the answers lose is gated by the drift."""


def compare(name: str, torch_out: Any, onnx_out: Any, limit: float = LIMITS["fp32"]) -> dict[str, Any]:
    """{"graph", "max_abs", "relative", "ok"} with relative = max|a - b| / max|a|, a being torch's output.

    Another shape or a value that is not finite is never ok.
    """
    a, b = _array(torch_out), _array(onnx_out)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return {"graph": name, "max_abs": float("inf"), "relative": float("inf"), "ok": False}
    max_abs = float(np.abs(a - b).max(initial=0.0))
    scale = float(np.abs(a).max(initial=0.0))
    relative = max_abs / scale if scale else max_abs
    return {"graph": name, "max_abs": max_abs, "relative": relative, "ok": relative <= limit}


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().float().cpu().numpy()
    return np.asarray(value, dtype=np.float64)
