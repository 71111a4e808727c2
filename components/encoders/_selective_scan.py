"""The recurrence of Mamba's state space, h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t and y_t = C_t h_t.

One definition, three ways to run it: a chunk of steps at a time, with a backward that makes the states again instead of
keeping them; torch's `scan` while a graph is exported, which becomes ONNX's Scan at any length; and, as the law that
both are held against, the plain loop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 16
"""Steps whose decays are in memory at once: enough to spread torch's cost a call, few enough for the cache."""


def selective_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y [L, R, ..., D] of x and dt [L, R, ..., D], b and c [L, R, ..., N], and a [R, 1, D, N] below zero.

    R recurrences, each with an `a` of its own, run side by side.
    """
    if torch.compiler.is_exporting():
        return _exported(x, dt, a, b, c)
    return _Scan.apply(x, dt, a, b, c)


def stepwise(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The definition, a step at a time."""
    state, found = x.new_zeros((*x.shape[1:], a.shape[-1])), []
    for step in range(len(x)):
        state = _decay(dt[step], a) * state + _drive(x[step], dt[step], b[step])
        found.append((state * c[step].unsqueeze(-2)).sum(-1))
    return torch.stack(found)


def _decay(dt: Tensor, a: Tensor) -> Tensor:
    return (dt.unsqueeze(-1) * a).exp()  # [..., D, N]


def _drive(x: Tensor, dt: Tensor, b: Tensor) -> Tensor:
    return (dt * x).unsqueeze(-1) * b.unsqueeze(-2)  # [..., D, N]


def _exported(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    from torch._higher_order_ops.scan import scan

    def step(state: Tensor, now: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        xs, dts, bs, cs = now
        state = _decay(dts, a) * state + _drive(xs, dts, bs)
        return state, (state * cs.unsqueeze(-2)).sum(-1)

    start = x.new_zeros((*x.shape[1:], a.shape[-1]))
    return scan(step, start, (x, dt, b, c), dim=0)[1]


class _Scan(torch.autograd.Function):
    """Keeps the inputs and the state before each chunk; the states within are made again to go back through them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        state, starts, found = x.new_zeros((*x.shape[1:], a.shape[-1])), [], []
        for parts in _chunks(x, dt, b, c):
            starts.append(state)
            states = _states(state, a, *parts[:3])
            found.append(torch.einsum("l...dn,l...n->l...d", states, parts[3]))
            state = states[-1].clone()
        ctx.save_for_backward(x, dt, a, b, c, *starts)
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, dt, a, b, c, *starts = ctx.saved_tensors
        found: list[tuple[Tensor, ...]] = []
        later, for_a = torch.zeros_like(starts[0]), torch.zeros_like(a)
        chunks = zip(_chunks(x, dt, b, c, gradients[0]), starts, strict=True)
        for (xs, dts, bs, cs, gs), start in reversed(list(chunks)):
            states = _states(start, a, xs, dts, bs)
            decays = _decay(dts, a)
            back = gs.unsqueeze(-1) * cs.unsqueeze(-2)  # [l, ..., D, N]: of the loss by each state, through its own y
            for step in range(len(back) - 1, -1, -1):
                back[step] += later
                later = decays[step] * back[step]
            for_c = torch.einsum("l...dn,l...d->l...n", states, gs)
            before = torch.cat([start.unsqueeze(0), states[:-1]])
            through = decays.mul_(before).mul_(back)  # by dt_t a, of every entry
            scaled = torch.einsum("l...dn,l...n->l...d", back, bs)
            for_dt = (through * a).sum(-1) + scaled * xs
            for_b = torch.einsum("l...dn,l...d->l...n", back, dts * xs)
            for_a += _reduced(through.mul_(dts.unsqueeze(-1)), a)
            found.append((scaled * dts, for_dt, for_b, for_c))
        for_x, for_dt, for_b, for_c = (torch.cat(parts) for parts in zip(*reversed(found), strict=True))
        return for_x, for_dt, for_a, for_b, for_c


def _chunks(*tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    return zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True)


def _states(state: Tensor, a: Tensor, x: Tensor, dt: Tensor, b: Tensor) -> Tensor:
    """The states after each step of a chunk [l, ..., D, N]."""
    decays, states = _decay(dt, a), _drive(x, dt, b)
    for step in range(len(states)):
        states[step].addcmul_(decays[step], state)
        state = states[step]
    return states


def _reduced(gradient: Tensor, a: Tensor) -> Tensor:
    """Summed over steps and over every axis along which `a` is 1: [l, R, ..., D, N] -> a's [R, 1, D, N]."""
    summed = gradient.sum(0)
    return summed.sum_to_size(a.shape)
