"""The key and value cache of a transformers LM, under the name that its version gives the argument."""

from __future__ import annotations

import inspect
from typing import Any


def cache_argument(lm: Any, cache: Any) -> dict[str, Any]:
    """The keyword under which `lm` takes a cache: `cache` since transformers 5.24, `past_key_values` before."""
    name = "cache" if "cache" in inspect.signature(lm.forward).parameters else "past_key_values"
    return {name: cache}
