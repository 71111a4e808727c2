"""Bottlenecks whose weights another network emits: the base of hypernetwork methods."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed, Wire


class Emitter(nn.Module):
    """One linear for each tensor of a bottleneck: condition [b, t] -> tensors [b, ...].

    Args:
        inputs: t.
        shapes: name and shape of each tensor.
        std: the weights are drawn from N(0, std^2), for each tensor or for all; the biases are zero.
    """

    def __init__(self, inputs: int, shapes: dict[str, tuple[int, ...]], std: float | dict[str, float]) -> None:
        super().__init__()
        self.shapes = shapes
        self.heads = nn.ModuleDict({name: nn.Linear(inputs, torch.Size(s).numel()) for name, s in shapes.items()})
        for name, head in self.heads.items():
            assert isinstance(head, nn.Linear)
            nn.init.normal_(head.weight, std=std[name] if isinstance(std, dict) else std)
            nn.init.zeros_(head.bias)

    def forward(self, condition: Tensor) -> dict[str, Tensor]:
        return {name: head(condition).unflatten(-1, self.shapes[name]) for name, head in self.heads.items()}


def bottleneck_shapes(width: int, inner: int, norm: bool) -> dict[str, tuple[int, ...]]:
    """down [m, d], its bias, up [d, m], its bias, and with `norm` a gain and a shift [d]."""
    shapes: dict[str, tuple[int, ...]] = {"down": (inner, width), "down_bias": (inner,), "up": (width, inner)}
    return {**shapes, "up_bias": (width,), **({"gain": (width,), "shift": (width,)} if norm else {})}


def emitted(x: Tensor, weights: dict[str, Tensor], activation: Callable[[Tensor], Tensor]) -> Tensor:
    """up(f(down(x))), each row of the batch with its own weights: [B, T, d], tensors [B or 1, ...] -> [B, T, d]."""
    inner = activation(x @ weights["down"].transpose(1, 2) + weights["down_bias"].unsqueeze(1))  # [B, T, m]
    return inner @ weights["up"].transpose(1, 2) + weights["up_bias"].unsqueeze(1)


class Tasks(nn.Module):
    """A vector for each task, and the one that every row takes: ids [B or 1] -> [B or 1, t]."""

    def __init__(self, count: int, width: int, ids: Wire) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(count, width))
        self.ids = ids

    def forward(self) -> Tensor:
        return F.embedding(self.ids().to(self.table.device), self.table)


class Condition(nn.Module):
    """LN(W2 relu(W1 [task; layer; position])): [b, t]."""

    def __init__(self, width: int, inner: int, layers: int, positions: int) -> None:
        super().__init__()
        self.layers = nn.Parameter(torch.randn(layers, width))
        self.positions = nn.Parameter(torch.randn(positions, width))
        self.mlp = nn.Sequential(nn.Linear(3 * width, inner), nn.ReLU(), nn.Linear(inner, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, task: Tensor, layer: int, position: int) -> Tensor:
        place = torch.cat([self.layers[layer], self.positions[position]]).expand(task.shape[0], -1)
        return self.norm(self.mlp(torch.cat([task, place], -1)))


class Emitted(nn.Module):
    """LN_{gain, shift}(up(gelu(down(x)))) with the weights of this layer, position and task: [B, T, d] -> [B, T, d]."""

    def __init__(self, tasks: Borrowed | Wire, emitter: Borrowed | nn.Module, place: tuple[Borrowed, int, int] | None):
        super().__init__()
        self.tasks, self.emitter, self.place = tasks, emitter, place

    def forward(self, x: Tensor) -> Tensor:
        condition = self.tasks()  # [b, t]
        if self.place is not None:
            condition = self.place[0](condition, *self.place[1:])
        weights = self.emitter(condition)
        change = emitted(x, weights, lambda value: F.gelu(value, approximate="tanh"))
        normed = F.layer_norm(change, change.shape[-1:])
        return normed * weights["gain"].unsqueeze(1) + weights["shift"].unsqueeze(1)
