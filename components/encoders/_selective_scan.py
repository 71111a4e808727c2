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

BUDGET = 2**19
"""Numbers of a chunk's states: enough steps to spread torch's cost a call, few enough for the cache."""
LONGEST = 64
"""Steps of a chunk at most, however small a state is."""


def selective_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y [L, R, ..., D] of x and dt [L, R, ..., D], b and c [L, R, ..., N], and a [R, 1, D, N] below zero.

    R recurrences, each with an `a` of its own, run side by side.
    """
    if torch.compiler.is_exporting():
        return _exported(x, dt, a, b, c)
    return _Scan.apply(x, dt, a.transpose(-1, -2).contiguous(), b, c)


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
    """Keeps the inputs and the state before each chunk; the states within are made again to go back through them.

    States lie as [..., N, D] here, so that the longer axis is the inner one of every pass over them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        state, starts, found = x.new_zeros((*x.shape[1:-1], *a.shape[-2:])), [], []
        ctx.steps = max(1, min(LONGEST, BUDGET // max(1, state.numel())))
        for xs, dts, bs, cs in _chunks(ctx.steps, x, dt, b, c):
            starts.append(state)
            _, states = _states(state, a, xs, dts, bs)
            found.append(_by_row(cs, states))
            state = states[-1].clone()
        ctx.save_for_backward(x, dt, a, b, c, *starts)
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, dt, a, b, c, *starts = ctx.saved_tensors
        found: list[tuple[Tensor, ...]] = []
        later, for_a = torch.zeros_like(starts[0]), torch.zeros_like(a)
        chunks = zip(_chunks(ctx.steps, x, dt, b, c, gradients[0]), starts, strict=True)
        for (xs, dts, bs, cs, gs), start in reversed(list(chunks)):
            decays, states = _states(start, a, xs, dts, bs)
            back = gs.unsqueeze(-2) * cs.unsqueeze(-1)  # [l, ..., N, D]: of the loss by each state, through its own y
            back[-1] += later
            for step in range(len(back) - 2, -1, -1):
                back[step].addcmul_(decays[step + 1], back[step + 1])
            later = decays[0] * back[0]
            for_c, for_b = _by_column(states, gs), _by_column(back, dts * xs)
            scaled = _by_row(bs, back)
            through = decays.mul_(back)  # by dt_t a, of every entry, once the states before are put in
            through[0] *= start
            through[1:] *= states[:-1]
            for_dt = (through * a).sum(-2) + scaled * xs
            for_a += through.mul_(dts.unsqueeze(-2)).sum(0).sum_to_size(a.shape)
            found.append((scaled * dts, for_dt, for_b, for_c))
        for_x, for_dt, for_b, for_c = (torch.cat(parts) for parts in zip(*reversed(found), strict=True))
        return for_x, for_dt, for_a, for_b, for_c


def _chunks(steps: int, *tensors: Tensor) -> zip[tuple[Tensor, ...]]:
    return zip(*(tensor.split(steps) for tensor in tensors), strict=True)


def _states(state: Tensor, a: Tensor, x: Tensor, dt: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The decays before and the states after each step of a chunk, [l, ..., N, D] both."""
    decays = (dt.unsqueeze(-2) * a).exp_()
    states = (dt * x).unsqueeze(-2) * b.unsqueeze(-1)
    for step in range(len(states)):
        states[step].addcmul_(decays[step], state)
        state = states[step]
    return decays, states


def _by_row(rows: Tensor, states: Tensor) -> Tensor:
    """[..., N] by [..., N, D] -> [..., D]"""
    return (rows.unsqueeze(-2) @ states).squeeze(-2)


def _by_column(states: Tensor, columns: Tensor) -> Tensor:
    """[..., N, D] by [..., D] -> [..., N]"""
    return (states @ columns.unsqueeze(-1)).squeeze(-1)
