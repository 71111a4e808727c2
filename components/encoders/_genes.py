"""What encoders of expression share: learning by guessing the values of hidden genes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.encoders._states import LayerMix

SPREAD = 0.02
"""Standard deviation of fresh embeddings."""


def draw_missing(module: nn.Module) -> None:
    """Fresh values, the same every time, for parameters that were made without memory and that no file has filled."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        for owner in module.modules():
            own = dict(owner.named_parameters(recurse=False))
            empty = [name for name, p in own.items() if p.is_meta]
            if isinstance(owner, LayerMix):
                owner.materialise()
                continue
            for name in empty:
                owner.register_parameter(name, nn.Parameter(torch.empty(own[name].shape, device="cpu")))
            if isinstance(owner, nn.Linear) and len(empty) == len(own):
                owner.reset_parameters()
            else:
                for name in empty:
                    nn.init.normal_(owner.get_parameter(name), std=SPREAD)


class MaskedValues(nn.Module):
    """Hides some values while a stage's objectives name the node, and leaves the error of their guesses as its loss.

    Of the genes with a value `rates[0]`, and of those without `rates[1]`, are hidden in each forward of training: their
    value's embedding is a learned vector instead. The loss is the mean of (w h + b - value)^2 over the hidden ones.
    Parameters: 2 * width + 1, none without `rates`.
    """

    auxiliary_loss: Tensor | None = None
    asked: bool = False
    """Whether the stage's objectives name this node."""

    def __init__(self, width: int, rates: tuple[float, float] | None) -> None:
        super().__init__()
        self.rates = rates
        self.hidden = nn.Parameter(torch.randn(width) * SPREAD) if rates else None
        self.head = nn.Linear(width, 1) if rates else None

    def for_loss(self) -> list[str]:
        """The parameters that only the guessing needs."""
        return [key for key, _ in self.named_parameters() if key == "hidden" or key.startswith("head.")]

    def hide(self, values: Tensor, expression: Tensor) -> tuple[Tensor, Tensor | None]:
        """The embedded values [B, G, d] with some hidden, and which [B, G]; None outside of such learning."""
        if self.rates is None or self.hidden is None or not (self.asked and self.training):
            return values, None
        rate = torch.where(expression != 0, *self.rates)
        chosen = torch.rand_like(expression) < rate
        return torch.where(chosen.unsqueeze(-1), self.hidden.to(values.dtype), values), chosen

    def guess(self, states: Tensor, expression: Tensor, chosen: Tensor) -> None:
        """Leave the loss of guessing the hidden values of `expression` [B, G] from `states` [B, G, d]."""
        assert self.head is not None
        error = (self.head(states).squeeze(-1).float() - expression.float()).square()
        self.auxiliary_loss = torch.where(chosen, error, 0).sum() / chosen.sum().clamp(min=1)
