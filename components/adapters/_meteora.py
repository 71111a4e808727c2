"""MeteoRA's gates: the few LoRAs of a token, and the loss that teaches which."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Wire


class TaskGates(nn.Module):
    """softmax over the k largest of G x / temperature for each token, the rest zero: [B, T, d] -> [B, T, N].

    Args:
        width: d.
        count: N.
        top: k.
        temperature: divides G x.
        weight: of the cross entropy of G x against the task of each row, in the loss.
        tasks: the wire with them, [B], -1 for a row that teaches nothing.
        picks: compute the k adapters of each token alone, in place of all N at once.
    """

    auxiliary_loss: Tensor | None = None

    def __init__(
        self, width: int, count: int, top: int, temperature: float, weight: float, tasks: Wire, picks: bool
    ) -> None:
        super().__init__()
        self.gate = nn.Linear(width, count, bias=False)
        self.count, self.top, self.temperature = count, min(top, count), temperature
        self.weight, self.tasks, self.picks = weight, tasks, picks
        nn.init.normal_(self.gate.weight, std=0.02)

    def chosen(self, x: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        """Which adapters each token takes and their gates: [B, T, k] each."""
        logits = self.gate(x).float()  # [B, T, N]
        self._teach(logits)
        largest, which = logits.topk(self.top, -1)
        return which, (largest / self.temperature).softmax(-1).to(x.dtype)

    def gates(self, x: Tensor, *_: Tensor) -> Tensor:
        """The same with zeros for the rest."""
        which, gates = self.chosen(x)
        return torch.zeros(*x.shape[:-1], self.count, dtype=x.dtype, device=x.device).scatter(-1, which, gates)

    def _teach(self, logits: Tensor) -> None:
        """Cross entropy of all tokens but the last, whose gates no next token of the row is predicted with."""
        if not self.training or self.tasks.value is None or logits.shape[1] < 2:
            return
        tasks = self.tasks().to(logits.device)[:, None].expand(logits.shape[:2])[:, 1:]
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tasks.flatten(), ignore_index=-1, reduction="sum")
        self.auxiliary_loss = self.weight * loss / (tasks >= 0).sum().clamp(min=1)
