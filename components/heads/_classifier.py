"""The module of `head.classifier`."""

from torch import Tensor, nn
from torch.nn import functional as F


class ClassifierHead(nn.Module):
    """Mean over tokens, then one linear."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, labels: Tensor, x: Tensor) -> dict[str, Tensor]:
        pooled = x.mean(1) if x.dim() == 3 else x  # [B, in]
        logits = self.linear(self.dropout(pooled))  # [B, classes]
        return {"loss": F.cross_entropy(logits.float(), labels), "logits": logits}
