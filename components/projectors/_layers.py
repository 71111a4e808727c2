"""The stack of linears that the plain projectors share."""

from itertools import pairwise

from torch import Tensor, nn

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class Mlp(nn.Sequential):
    """`depth` linears with an activation between them, over the last axis."""

    def __init__(
        self,
        inner: int,
        outer: int,
        depth: int,
        hidden: int | None = None,
        activation: str = "gelu",
        norm: bool = False,
        bias: bool = True,
    ) -> None:
        widths = [inner, *[hidden or outer] * (depth - 1), outer]
        layers: list[nn.Module] = [nn.LayerNorm(inner)] if norm else []
        for index, (a, b) in enumerate(pairwise(widths)):
            layers += [ACTIVATIONS[activation]()] if index else []
            layers.append(nn.Linear(a, b, bias=bias))
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(1) if x.dim() == 2 else x  # [B, T, in]
        return super().forward(x)  # [B, T, out]
