"""The torch side of what encoders share: a mix of layers, and named tensors put into a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assembler.errors import AssemblerError, told


class LayerMix(nn.Module):
    """gamma * sum_l softmax(w)_l h_l of `count` states [B, T, D] -> [B, T, D]; the mean of them at first.

    Parameters: count + 1.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(count))
        self.gamma = nn.Parameter(torch.ones(1))

    def materialise(self) -> None:
        """Values for parameters that were made without memory, when the encoder's own come from a file."""
        if self.weights.is_meta:
            self.weights = nn.Parameter(torch.zeros(self.weights.shape, device="cpu"))
            self.gamma = nn.Parameter(torch.ones(1, device="cpu"))

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(tuple(states), dim=-1)  # [B, T, D, L]
        return self.gamma * (stacked @ self.weights.softmax(0))


def drop(model: nn.Module, names: Sequence[str]) -> None:
    """Take these modules and parameters out of `model`, which its chosen output does not read; some may not be there.

    An item of a list goes with those after it. What stays is all that learns and all that is kept in files.
    """
    for name in names:
        path, _, last = name.rpartition(".")
        parent = model.get_submodule(path)
        if isinstance(parent, nn.ModuleList):
            del parent[int(last) :]
        elif last in parent._parameters:
            parent._parameters[last] = None
        elif last in parent._modules:
            parent._modules[last] = None


def place_exactly(
    model: nn.Module, state: dict[str, Tensor], prefixes: Sequence[str], name: str, optional: Sequence[str] = ()
) -> None:
    """Put into `model` every tensor that it has, from the first of `prefixes` under which `state` has one of them.

    What else `state` holds, such as a decoder or a head, is left out. Tensors whose names begin with one of `optional`
    may be missing when the model has values for them already.

    Raises:
        AssemblerError: a tensor is missing or of another shape.
    """
    own = model.state_dict()
    first = next(iter(own))
    prefix = next((p for p in prefixes if p + first in state), prefixes[0])
    found = {key: state[prefix + key] for key in own if prefix + key in state}
    missing = [key for key in own if key not in found and not key.startswith(tuple(optional))]
    wrong = [key for key, x in found.items() if x.shape != own[key].shape]
    if missing:
        raise AssemblerError(f"{name}: {prefix}{missing[0]} is missing; give the weights of a model of this kind")
    if wrong:
        have, want = list(found[wrong[0]].shape), list(own[wrong[0]].shape)
        raise AssemblerError(f"{name}: {prefix}{wrong[0]} is {have} and the config makes it {want}; they do not belong")
    kept = {key: x.to(own[key].dtype) for key, x in found.items()}
    model.load_state_dict(kept, strict=not optional, assign=True)


def fill(model: Any, folder: Path, name: str, **options: Any) -> None:
    """Put a folder of transformers into `model`, a model of transformers made of the folder's config.

    transformers itself reads it, as it knows the names that older versions gave to tensors. `options` are what the
    model was made with beside its config. The folder must hold the whole model, also what was dropped of it.

    Raises:
        AssemblerError: a tensor is missing or of another shape.
    """
    with told(f"{name} cannot be read by transformers"):
        loaded, report = type(model).from_pretrained(
            folder,
            config=model.config,
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            **options,
        )
    for what in ("missing_keys", "mismatched_keys"):
        for key in sorted(map(str, report[what])):
            raise AssemblerError(f"{name}: {key} is {what.split('_')[0]}; give the weights of this very config")
    own, state = model.state_dict(), loaded.state_dict()
    model.load_state_dict({key: state[key] for key in own}, assign=True)
