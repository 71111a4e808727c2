"""How far a bundle's distribution has drifted from torch's, on answers that people gave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BOUNDS = {"fp32": 1e-6, "fp16": 1e-4, "bf16": 1e-2, "int8": 1e-2, "int8_dynamic": 5e-2, "int4": 5e-2}
"""The largest mean KL divergence, in nats a token, that a bundle of each precision may have."""


def drift(exact: Sequence[np.ndarray], given: Sequence[np.ndarray], ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """`kl` (mean over tokens of KL(torch || bundle), in nats), `top1` (share of tokens whose likeliest is the same),
    and the `perplexity` of the answers under both.

    Args:
        exact: torch's logits [answer tokens, V] of each sample.
        given: the bundle's.
        ids: the answers' tokens, which both were told.
    """
    p, q = (_log_softmax(np.concatenate(list(x)).astype(np.float64)) for x in (exact, given))  # [N, V]
    told = np.concatenate([np.asarray(row, np.int64) for row in ids])
    at = np.arange(len(told))
    return {
        "kl": float(max(0.0, (np.exp(p) * (p - q)).sum(-1).mean())),
        "top1": float((p.argmax(-1) == q.argmax(-1)).mean()),
        "perplexity": {name: float(np.exp(-x[at, told].mean())) for name, x in (("torch", p), ("bundle", q))},
        "tokens": len(told),
    }


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
