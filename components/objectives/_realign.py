"""The module of `objective.realign`."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class Realign(nn.Module):
    """KL between the student and the mix of two teachers, over the vocabulary, mean over positions."""

    def __init__(self, lam: float, direction: str) -> None:
        super().__init__()
        self.lam, self.direction = lam, direction

    def forward(self, student: dict[str, Any], reference: dict[str, Any], aligned: dict[str, Any]) -> dict[str, Tensor]:
        """Each gives logits [B, A, V]; the loss is a number, and the logits are the student's."""
        old, new = (one["logits"].detach().float() for one in (reference, aligned))
        teacher = (self.lam * new + (1 - self.lam) * old).log_softmax(-1).flatten(0, -2)  # [N, V]
        own = student["logits"].float().log_softmax(-1).flatten(0, -2)
        pair = (own, teacher) if self.direction == "teacher" else (teacher, own)
        return {"loss": F.kl_div(*pair, reduction="batchmean", log_target=True), "logits": student["logits"]}
