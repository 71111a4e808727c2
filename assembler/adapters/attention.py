"""A change inside attention: an adapter sees queries, keys and values after their projections, rotary positions and
cache, and calls the host's own attention on what it likes.

transformers' modules ask their config for an attention function by name, so the module gets a view of its config that
names ours. Any other module is expected to call `scaled_dot_product_attention`, which is intercepted while it runs.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from assembler.errors import AssemblerError

NAME = "assembler"


class Attend:
    """The attention of the host, and of the adapters below this one: `attend(q, k, v) -> [B, H, T, d]`.

    q is [B, H, T, d], k and v are [B, H_kv, S, d] with H a multiple of H_kv.

    Attributes:
        lengths: T and S of the host's own call.
    """

    def __init__(self, call: Callable[..., Tensor], rest: list[nn.Module], q: Tensor, k: Tensor, extra: int = 0):
        self.call, self.rest, self.extra = call, rest, extra
        self.lengths = (q.shape[2], k.shape[2])
        self.q, self.k = q, k

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra: int = 0, bias: Tensor | None = None) -> Tensor:
        """Attention under the host's mask.

        Args:
            q: queries.
            k: keys; the first `extra` are not the host's, and every query sees them.
            v: values of the keys.
            extra: how many keys stand in front of the host's.
            bias: what is added to the scores, broadcast to [B, H, T, S]; only in the innermost adapter.
        """
        if self.rest:
            inner = Attend(self.call, self.rest[:-1], self.q, self.k, self.extra + extra)
            return self.rest[-1](inner, q, k, v)
        return self.call(q, k, v, self.extra + extra, bias)

    def free(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of every query to every key, with no mask."""
        return self.call(q, k, v, None, None)


class Intercept:
    """Puts the adapters between a module and the attention function that it calls."""

    def __init__(self, core: nn.Module, modules: list[nn.Module]) -> None:
        self.core, self.modules = core, modules
        self.named = type(core).__module__.startswith("transformers.") and hasattr(core, "config")
        self.own: Any = None

    def install(self) -> None:
        """Let a transformers module find our function under its config's name."""
        if not self.named:
            return
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS.register(NAME, named_attention)
        self.own = self.core.config
        view = copy.copy(self.own)
        view._attn_implementation_internal = NAME
        self.core.config = view
        self.core.__dict__["_adapted"] = self

    def remove(self) -> None:
        """Give the module its own config back."""
        if self.named:
            self.core.config = self.own
            self.core.__dict__.pop("_adapted", None)

    def run(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The module's forward, with its attention through the adapters.

        Raises:
            AssemblerError: the module computes attention in a way that cannot be seen from outside.
        """
        if self.named:
            return forward(*args, **kwargs)
        if isinstance(self.core, nn.MultiheadAttention):
            forward = partial(opened, self.core)
        with Watch(self.modules) as watch:
            output = forward(*args, **kwargs)
        if not torch.compiler.is_compiling() and not watch.called:
            raise AssemblerError(
                f"{type(self.core).__name__} does not attend by scaled_dot_product_attention, so that no adapter can "
                "change its attention; choose another host, or a method that stands beside attention"
            )
        return output

    def function(self) -> Callable[..., Any]:
        """The attention function that the module would call without us."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        eager = getattr(sys.modules[type(self.core).__module__], "eager_attention_forward", None)
        return ALL_ATTENTION_FUNCTIONS.get(self.own._attn_implementation, eager)


def named_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Any]:
    """transformers' attention interface, through the adapters on `module`."""
    intercept: Intercept = module.__dict__["_adapted"]
    function = intercept.function()
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    given: list[tuple[Tensor, Tensor, Any]] = []  # what each call was answered with, as [B, H, T, d] and as it came

    def call(q: Tensor, k: Tensor, v: Tensor, extra: int | None, bias: Tensor | None) -> Tensor:
        knobs = dict(kwargs)
        mask = attention_mask
        if extra is None:
            mask, knobs["is_causal"] = None, False
            knobs.pop("position_bias", None)
        elif extra or bias is not None:
            mask = widened(mask, bool(causal), q, k, extra, bias)
            knobs["is_causal"] = False
            if extra and knobs.get("position_bias") is not None:
                knobs["position_bias"] = F.pad(knobs["position_bias"], (extra, 0))
        out, found = function(module, q, k, v, mask, **knobs)  # [B, T, H, d]
        given.append((out.transpose(1, 2), out, found))
        return given[-1][0]

    out = Attend(call, intercept.modules, query, key)(query, key, value)
    if len(given) == 1 and out is given[0][0]:  # as it came, which saves two turns
        return given[0][1:]
    return out.transpose(1, 2).contiguous(), given[0][2] if len(given) == 1 else None


class Watch(TorchFunctionMode):
    """Sends every call of `scaled_dot_product_attention` in its block through the adapters."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.modules, self.called = modules, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        if not torch.compiler.is_compiling():  # a tracer takes no notes
            self.called = True
        return self.through(func, *args, **(kwargs or {}))

    def through(
        self,
        func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        def call(q: Tensor, k: Tensor, v: Tensor, extra: int | None, bias: Tensor | None) -> Tensor:
            if extra is None:
                return func(q, k, v, dropout_p=dropout_p, **kwargs)
            if not extra and bias is None:
                return func(q, k, v, attn_mask, dropout_p, is_causal, **kwargs)
            return func(q, k, v, widened(attn_mask, is_causal, q, k, extra, bias), dropout_p, **kwargs)

        return Attend(call, self.modules, query, key)(query, key, value)


def opened(
    mha: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, None]:
    """What torch's own attention computes, in steps that can be seen: its fast path hides them.

    The weights of attention are not given out. Masks are torch's: True is hidden, numbers are added.
    """
    if not mha.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    weights, biases = projections(mha)
    q, k, v = (
        F.linear(x, w, b).unflatten(-1, (mha.num_heads, mha.head_dim)).transpose(1, 2)  # [B, H, T, d]
        for x, w, b in zip((query, key, value), weights, biases, strict=True)
    )
    mask = None if attn_mask is None else ~attn_mask if attn_mask.dtype == torch.bool else attn_mask
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, (-1, mha.num_heads))
    if key_padding_mask is not None:
        seen = ~key_padding_mask.bool()[:, None, None]  # [B, 1, 1, S]
        if mask is not None and mask.dtype != torch.bool:
            seen = torch.zeros_like(seen, dtype=q.dtype).masked_fill(~seen, float("-inf"))
            mask = mask + seen
        else:
            mask = seen if mask is None else mask & seen
    out = F.scaled_dot_product_attention(q, k, v, mask, mha.dropout if mha.training else 0.0)
    out = mha.out_proj(out.transpose(1, 2).flatten(2))  # [B, T, D]
    return out if mha.batch_first else out.transpose(0, 1), None


def projections(mha: nn.MultiheadAttention) -> tuple[list[Tensor], list[Tensor | None]]:
    """Weights and biases of queries, keys and values."""
    if mha.in_proj_weight is None:
        weights = [mha.q_proj_weight, mha.k_proj_weight, mha.v_proj_weight]
    else:
        weights = list(mha.in_proj_weight.chunk(3))
    return weights, [None] * 3 if mha.in_proj_bias is None else list(mha.in_proj_bias.chunk(3))


def widened(mask: Tensor | None, causal: bool, q: Tensor, k: Tensor, extra: int, bias: Tensor | None) -> Tensor | None:
    """The mask with `extra` keys in front that every query sees, and with `bias` added: [B or 1, H or 1, T, S]."""
    new, keys = q.shape[2], k.shape[2]
    if mask is None and causal and new > 1:
        mask = torch.ones(1, 1, new, keys, dtype=torch.bool, device=q.device).tril(keys - new)
    elif mask is not None and extra:
        seen = mask.new_ones if mask.dtype == torch.bool else mask.new_zeros
        mask = torch.cat([seen((*mask.shape[:-1], extra)), mask], -1)
    if bias is None:
        return mask
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, torch.finfo(q.dtype).min)
    return mask + bias
