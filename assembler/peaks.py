"""The largest inputs that the linears of a language model are given while it runs on real samples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from assembler.bundle.architecture import architecture_of, canonical_path


@contextmanager
def peaks_of(prompted: Any) -> Iterator[dict[str, np.ndarray]]:
    """max |x| of every input of every linear, [in], by canonical path, once the block is over.

    It is empty where the LM is none that is written directly.
    """
    found: dict[str, np.ndarray] = {}
    shape = architecture_of(prompted.lm.config.get_text_config())
    if isinstance(shape, str):
        yield found
        return
    hooks = []
    for path, module in prompted.lm.named_modules():
        name = canonical_path(shape, path)
        if name is not None and hasattr(module, "weight"):

            def look(module: Any, given: tuple[Any, ...], name: str = name) -> None:
                peak = given[0].detach().abs().flatten(0, -2).amax(0).float().cpu().numpy()
                found[name] = np.maximum(found[name], peak) if name in found else peak

            hooks.append(module.register_forward_pre_hook(look))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
