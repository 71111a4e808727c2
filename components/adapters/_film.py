"""FiLM as a change of a norm's own weight and bias."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Film(nn.Module):
    """gamma * w and gamma * b + beta."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.gamma * weight, self.beta if bias is None else self.gamma * bias + self.beta

    fold = forward


def behind_depthwise(root: nn.Module, path: str) -> bool:
    """Whether the last convolution before the module at `path`, in the module that holds it, is depthwise."""
    parent, _, name = path.rpartition(".")
    last = None
    for key, module in root.get_submodule(parent).named_children():
        if key == name:
            break
        if isinstance(module, nn.Conv2d):
            last = module
    return last is not None and last.groups == last.out_channels > 1
