"""Hyper-adapters: one network writes the bottleneck of every layer for a pair of languages."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.host import Borrowed, Wire
from components.adapters._hyper import Emitter, emitted


class Block(nn.Module):
    """h + W2 relu(W1 LN(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.one, self.two = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.two(F.relu(self.one(self.norm(h))))


class Generator(nn.Module):
    """Tensors of a layer's bottleneck from [source language; target language; layer], each divided by sqrt(width).

    Args:
        languages: how many there are.
        layers: of the host, all stacks together.
        embedding: width of each of the three.
        width: of the network.
        blocks: residual blocks after its first layer.
        shapes: of what it writes.
        std: of the last layer's weights, for each tensor.
        rescale: divide by sqrt(width), so that what is written does not grow with it.
        knows: which of the three are not zero.
    """

    def __init__(
        self,
        languages: int,
        layers: int,
        embedding: int,
        width: int,
        blocks: int,
        shapes: dict[str, tuple[int, ...]],
        std: dict[str, float],
        rescale: bool,
        knows: Collection[str] = ("source", "target", "layer"),
    ) -> None:
        super().__init__()
        self.sources = nn.Parameter(torch.randn(languages, embedding))
        self.targets = nn.Parameter(torch.randn(languages, embedding))
        self.layers = nn.Parameter(torch.randn(layers, embedding))
        self.first = nn.Linear(3 * embedding, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.emitter = Emitter(width, shapes, std)
        self.scale = width**-0.5 if rescale else 1.0
        self.known = [float(name in knows) for name in ("source", "target", "layer")]

    def forward(self, source: Tensor, target: Tensor, layer: int) -> dict[str, Tensor]:
        """ids [B or 1] and a layer's number -> tensors [B or 1, ...]."""
        one, two = (F.embedding(i.to(t.device), t) for i, t in ((source, self.sources), (target, self.targets)))
        one, two = torch.broadcast_tensors(one, two)
        place = self.layers[layer].expand_as(one)
        read = [known * part for known, part in zip(self.known, (one, two, place), strict=True)]
        hidden = self.blocks(F.relu(self.first(torch.cat(read, -1))))  # [B, h]
        return {name: tensor * self.scale for name, tensor in self.emitter(hidden).items()}


class Written(nn.Module):
    """W_up relu(W_down LN(x) + b_down) + b_up with the tensors of this layer: [B, T, d] -> [B, T, d]."""

    def __init__(self, generator: Borrowed, layer: int, languages: tuple[Wire, Wire]) -> None:
        super().__init__()
        self.generator, self.layer, self.languages = generator, layer, languages

    def forward(self, x: Tensor) -> Tensor:
        weights = self.generator(*(wire() for wire in self.languages), self.layer)
        normed = F.layer_norm(x, x.shape[-1:])
        if "gain" in weights:
            normed = normed * (1 + weights["gain"]).unsqueeze(1) + weights["shift"].unsqueeze(1)
        return emitted(normed, weights, F.relu)
