"""GLoRA's module, its supernet, and the search for the best path of each layer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

LOW_RANK, VECTOR, SCALAR, NONE = "low_rank", "vector", "scalar", "none"


class Path(NamedTuple):
    """What each of GLoRA's five tensors is in one layer."""

    a: str
    b: str
    c: str
    d: str
    e: str


KINDS = Path(*[(LOW_RANK, VECTOR, SCALAR, NONE)] * 2, (LOW_RANK, VECTOR, NONE), *[(VECTOR, SCALAR, NONE)] * 2)  # type: ignore[call-arg,arg-type]
"""What each of them may be: 4 * 4 * 3 * 3 * 3 = 432 paths."""
SUPERNET = Path(LOW_RANK, LOW_RANK, LOW_RANK, VECTOR, VECTOR)
"""The path that holds all others: a smaller tensor is the start of a larger one."""


class Glora(nn.Module):
    """W + W * A + B and b + b * D + E + W C, with * element by element; without a bias only A and B are there.

    A and B are [out, r] [r, in], [out, 1] or [1, 1], C is [in, r] [r, 1] or [in, 1], D and E are [out] or [1].

    Args:
        shape: outputs and inputs of the layer.
        bias: whether it has a bias.
        rank: r.
        path: what each tensor is.
        supernet: hold the tensors of every path, and draw one in each forward of training.
    """

    def __init__(self, shape: tuple[int, int], bias: bool, rank: int, path: Path, supernet: bool) -> None:
        super().__init__()
        outputs, inputs = shape
        self.path, self.supernet = path, supernet
        sizes = {"a": (outputs, inputs), "b": (outputs, inputs), "c": (inputs, 1), "d": (outputs, 1), "e": (outputs, 1)}
        for name, kind in (SUPERNET if supernet else path)._asdict().items():
            if kind == NONE or (name in "cde" and not bias):
                continue
            rows, columns = sizes[name]
            first = {LOW_RANK: (rows, rank), VECTOR: (rows, 1), SCALAR: (1, 1)}[kind]
            self.register_parameter(f"{name}_down", nn.Parameter(torch.zeros(first)))
            if kind == LOW_RANK:
                self.register_parameter(f"{name}_up", nn.Parameter(torch.empty(rank, columns)))
                nn.init.xavier_uniform_(getattr(self, f"{name}_up"))

    def tensor(self, name: str, kind: str) -> Tensor:
        """One of the five as `kind`: a matrix that broadcasts to what it changes."""
        down = getattr(self, f"{name}_down")
        if kind == LOW_RANK:
            return down @ getattr(self, f"{name}_up")
        return down[:, :1] if kind == VECTOR else down[:1, :1]

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """weight [out, in] and bias [out] -> those that the layer computes with."""
        path = drawn() if self.supernet and self.training else self.path
        changed = weight
        if path.a != NONE:
            changed = changed + weight * self.tensor("a", path.a)
        if path.b != NONE:
            changed = changed + self.tensor("b", path.b)
        if bias is None:
            return changed, None
        shift = bias
        if path.d != NONE:
            shift = shift + bias * self.tensor("d", path.d)[:, 0]
        if path.e != NONE:
            shift = shift + self.tensor("e", path.e)[:, 0]
        if path.c != NONE:
            shift = shift + (weight @ self.tensor("c", path.c))[:, 0]
        return changed, shift

    fold = forward

    def size(self, path: Path) -> int:
        """The number of parameters that a path uses."""
        there = {name: kind for name, kind in path._asdict().items() if kind != NONE and hasattr(self, f"{name}_down")}
        low = sum(getattr(self, f"{name}_up").numel() for name, kind in there.items() if kind == LOW_RANK)
        starts = (self._start(name, kind) for name, kind in there.items())
        return low + sum(starts)

    def _start(self, name: str, kind: str) -> int:
        rows, columns = getattr(self, f"{name}_down").shape
        return {LOW_RANK: rows * columns, VECTOR: rows, SCALAR: 1}[kind]


def drawn(source: random.Random | None = None) -> Path:
    """One of the 432 paths, each as likely; from Python's generator, whose state a checkpoint keeps."""
    choose = (source or random).choice
    return Path(*map(choose, KINDS))  # type: ignore[call-arg,arg-type]


Choice = tuple[Path, ...]


class Search:
    """The evolutionary search of a trained supernet for the path of each layer (arXiv 2306.07967).

    Args:
        modules: the supernet's modules by site.
        score: how good the host is with the paths that are set; more is better.
        budget: the most parameters that all paths may use together.
        population: candidates in each generation, of which `parents` are the best so far.
        mutations: children whose layers are each drawn anew with probability `rate`.
        crossovers: children that take each layer from one of two parents.
    """

    def __init__(
        self,
        modules: Mapping[str, Glora],
        score: Callable[[], float],
        budget: int,
        population: int = 50,
        mutations: int = 25,
        crossovers: int = 25,
        parents: int = 10,
        rate: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.modules, self.score, self.budget = dict(modules), score, budget
        self.population, self.mutations, self.crossovers = population, mutations, crossovers
        self.parents, self.rate, self.random = parents, rate, random.Random(seed)
        self.scores: dict[Choice, float] = {}

    def run(self, epochs: int = 20) -> dict[str, Path]:
        """The best path of each site, which is also left set; the host draws no more."""
        first = [Choice(drawn(self.random) for _ in self.modules) for _ in range(self.population)]
        generation = [self._fitting(choice) for choice in first]
        for _ in range(epochs):
            best = self._best(generation)[: self.parents]
            children = [self._mutated(self.random.choice(best)) for _ in range(self.mutations)]
            for _ in range(self.crossovers):
                pair = (self.random.choice(best), self.random.choice(best))
                children.append(self._fitting(tuple(map(self.random.choice, zip(*pair, strict=True)))))
            generation = [*best, *children]
        winner = self._best(generation)[0]
        self._set(winner)
        return dict(zip(self.modules, winner, strict=True))

    def size(self, choice: Sequence[Path]) -> int:
        """The parameters that the paths of all layers use."""
        return sum(module.size(path) for module, path in zip(self.modules.values(), choice, strict=True))

    def _mutated(self, choice: Choice) -> Choice:
        return self._fitting(tuple(drawn(self.random) if self.random.random() < self.rate else p for p in choice))

    def _fitting(self, choice: Choice) -> Choice:
        """The choice, with layers emptied at random until it keeps to the budget."""
        paths = list(choice)
        order = self.random.sample(range(len(paths)), len(paths))
        while order and self.size(paths) > self.budget:
            paths[order.pop()] = Path(NONE, NONE, NONE, NONE, NONE)
        return tuple(paths)

    def _best(self, generation: Sequence[Choice]) -> list[Choice]:
        for choice in generation:
            if choice not in self.scores:
                self._set(choice)
                self.scores[choice] = self.score()
        return sorted(dict.fromkeys(generation), key=self.scores.__getitem__, reverse=True)

    def _set(self, choice: Choice) -> None:
        for module, path in zip(self.modules.values(), choice, strict=True):
            module.path, module.supernet = path, False
