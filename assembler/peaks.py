"""How large numbers get within a language model that runs on real samples: inputs of linears, keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from assembler.bundle.architecture import architecture_of, canonical_path
from assembler.bundle.decoder import Reach
from assembler.evaluate import Row, TorchAnswers


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


def reach_of(answers: TorchAnswers, rows: Sequence[Row], rotary: bool) -> list[Reach]:
    """How far keys and values reach in each layer, for prompts and right answers.

    A rotary embedding turns channels i and i + d/2 of a head about each other by any angle: both reach as far as the
    two together. What stands in the padding counts for nothing.
    """
    layers, mask = answers.cached(rows)
    padding = ~mask.bool()[:, None, :, None]
    found = []
    for keys, values in layers:
        turned = torch.hypot(*keys.chunk(2, -1)).repeat(1, 1, 1, 2) if rotary else keys
        largest = [x.abs().masked_fill(padding, 0).amax((0, 2)).flatten() for x in (turned, values)]
        found.append((largest[0].float().cpu().numpy(), largest[1].float().cpu().numpy()))
    return found
