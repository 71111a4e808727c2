"""A tap: what stands in for the `forward` of one module of a host while adapters are active there.

The host's modules stay where and what they are: a tap is an entry `forward` in the instance's `__dict__`, and taking
it out leaves the host as it was. It is ordinary Python, so that `torch.compile` and `torch.export` trace through it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assembler.adapters.attention import Intercept
from assembler.errors import AssemblerError

Side = Literal["in", "out"]
Cut = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Point:
    """The value that goes into or comes out of the module at `path`; of a fused output, part `index` of `of`."""

    path: str
    side: Side
    index: int = 0
    of: int = 1


@dataclass
class Insert:
    """One module of an adapter and what it does to the host.

    Attributes:
        kind: `add` and `set` compute the value at `point` from those at `reads`; `around` wraps the call of the module
            there, `weight` changes its weight and bias, `attend` its attention.
        point: where it acts; the side says nothing for `around`, `weight` and `attend`.
        module: the adapter's module.
        reads: the points whose values `module` is called with; the point itself stands for the value that is changed.
        at: the name of the point or site.
        idle: set where another insert reads and computes for it.
    """

    kind: Literal["add", "set", "around", "weight", "attend"]
    point: Point
    module: nn.Module
    reads: tuple[Point, ...] = ()
    at: str = ""
    idle: bool = False
    cells: list[Cell | None] = field(default_factory=list)

    def __call__(self, value: Tensor, cut: Cut) -> Tensor:
        """The new value at the point: [B, T, D] -> [B, T, D]."""
        out = self.module(*self.given(value, cut))
        return value + out if self.kind == "add" else out

    def given(self, value: Tensor, cut: Cut) -> list[Tensor]:
        """The values at `reads`."""
        return [value if cell is None else cut(cell.take()) for cell in self.cells]


class Cell:
    """A value on its way from where it is read to where it is used; empty again once it is."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def take(self) -> Tensor:
        value, self.value = self.value, None
        if value is None:
            raise AssemblerError("an adapter writes before the value that it reads is there; read an earlier point")
        return value


Program = Callable[[Tensor, Cut], Tensor]


def whole(value: Tensor) -> Tensor:
    """The cut that cuts nothing."""
    return value


class Tap:
    """The calls of one module with its adapters; see the module's docstring."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.previous: Callable[..., Any] | None = None
        own = inspect.signature(type(module).forward)
        self.__signature__ = own.replace(parameters=list(own.parameters.values())[1:])  # for those who ask the module
        self.first = next(iter(self.__signature__.parameters), "input")
        self.cells: dict[str, list[tuple[Cell, Point]]] = {"in": [], "out": []}
        self.programs: dict[str, list[tuple[Point, Program]]] = {"in": [], "out": []}
        self.arounds: list[nn.Module] = []
        self.weights: list[tuple[Point, nn.Module]] = []
        self.intercept: Intercept | None = None

    def install(self) -> None:
        """Stand in for the module's forward."""
        self.previous = self.module.__dict__.get("forward")
        self.module.__dict__["forward"] = self
        if self.intercept is not None:
            self.intercept.install()

    def remove(self) -> None:
        """Leave the module as it was."""
        if self.intercept is not None:
            self.intercept.remove()
        self.module.__dict__.pop("forward", None)
        if self.previous is not None:
            self.module.__dict__["forward"] = self.previous

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.programs["in"] or self.cells["in"]:
            value = self._passed("in", args[0] if args else kwargs[self.first])
            args, kwargs = ((value, *args[1:]), kwargs) if args else (args, {**kwargs, self.first: value})
        call: Callable[..., Any] = self._own
        for module in self.arounds:
            call = partial(module, call)
        output = call(*args, **kwargs)
        if self.programs["out"] or self.cells["out"]:
            output = with_first(output, self._passed("out", first_of(output)))
        return output

    def _own(self, *args: Any, **kwargs: Any) -> Any:
        if self.weights:
            return called_with(self.module, *self._changed(), args[0] if args else kwargs[self.first])
        forward = self.previous or partial(type(self.module).forward, self.module)
        if self.intercept is None:
            return forward(*args, **kwargs)
        return self.intercept.run(forward, *args, **kwargs)

    def _changed(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = weight_and_bias(self.module)
        for point, module in self.weights:
            weight, bias = on_slice(point, weight, bias, module)
        return weight, bias

    def _passed(self, side: Side, value: Tensor) -> Tensor:
        for point, program in self.programs[side]:
            if point.of == 1:
                value = program(value, whole)
            else:
                parts = list(value.chunk(point.of, -1))
                parts[point.index] = program(parts[point.index], whole)
                value = torch.cat(parts, -1)
        for cell, point in self.cells[side]:
            cell.value = value if point.of == 1 else value.chunk(point.of, -1)[point.index]
        return value


def first_of(output: Any) -> Tensor:
    """The tensor that a module's output is about: itself, or its first item."""
    if isinstance(output, Tensor):
        return output
    return next(iter(output.values())) if isinstance(output, Mapping) else output[0]


def with_first(output: Any, value: Tensor) -> Any:
    """The same output with that tensor replaced."""
    if isinstance(output, Tensor):
        return value
    if isinstance(output, Mapping):
        changed: Any = type(output)(**output)
        changed[next(iter(output))] = value
        return changed
    return (value, *output[1:]) if type(output) is tuple else [value, *output[1:]]


def is_conv1d(module: nn.Module) -> bool:
    """Whether a module is GPT-2's linear, whose weight is [in, out]."""
    return type(module).__name__ == "Conv1D"


def weight_and_bias(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight, its first axis the outputs, and bias."""
    weight, bias = module.weight, getattr(module, "bias", None)
    assert isinstance(weight, Tensor)
    return weight.T if is_conv1d(module) else weight, bias  # type: ignore[return-value]


def on_slice(
    point: Point, weight: Tensor, bias: Tensor | None, change: Callable[..., tuple[Tensor, Tensor | None]]
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with `change` applied to the rows of the point, which may be a slice of a fused projection."""
    if point.of == 1:
        return change(weight, bias)
    rows = list(weight.chunk(point.of, 0))
    shifts = [None] * point.of if bias is None else list(bias.chunk(point.of, 0))
    row, shift = change(rows[point.index], shifts[point.index])
    rows[point.index] = row
    if bias is None or shift is None:
        if shift is not None:
            raise AssemblerError(f"{point.path} has no bias, and the adapter gives one to a slice of it")
        return stacked(rows, weight), bias
    parts = list(bias.chunk(point.of, 0))
    parts[point.index] = shift
    return stacked(rows, weight), torch.cat(parts)


def stacked(rows: list[Tensor], like: Tensor) -> Tensor:
    """Rows as one matrix that lies in memory as `like` does, so that products with it have the same bits."""
    turned = like.dim() == 2 and like.T.is_contiguous() and not like.is_contiguous()
    return torch.cat([row.T for row in rows], 1).T if turned else torch.cat(rows)


def called_with(module: nn.Module, weight: Tensor, bias: Tensor | None, value: Tensor) -> Tensor:
    """What the module gives for `value` with another weight, [out, ...], and bias."""
    if isinstance(module, nn.Linear) or is_conv1d(module):
        return F.linear(value, weight, bias)
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module._conv_forward(value, weight, bias)
    if isinstance(module, nn.Embedding):
        return F.embedding(value, weight, module.padding_idx)
    if isinstance(module, nn.LayerNorm):
        return F.layer_norm(value, module.normalized_shape, weight, bias, module.eps)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return batch_normed(module, weight, bias, value)
    raise AssemblerError(f"a {type(module).__name__} has no weight that an adapter can change; name a linear")


def batch_normed(module: Any, weight: Tensor, bias: Tensor | None, value: Tensor) -> Tensor:
    """The batch norm with another weight and bias, and the activation that timm's holds."""
    batch = module.training or module.running_mean is None
    momentum = 0.0 if module.momentum is None else module.momentum
    value = F.batch_norm(value, module.running_mean, module.running_var, weight, bias, batch, momentum, module.eps)
    return module.act(module.drop(value)) if hasattr(module, "act") else value


def foldable(module: nn.Module) -> bool:
    """Whether `called_with` knows the module."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)
    return isinstance(module, kinds) or is_conv1d(module)
