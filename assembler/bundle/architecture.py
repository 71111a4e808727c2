"""Which decoders are written directly, and what a writer has to know of them: read from a transformers config.

A decoder is described here when its layers are RMSNorm, rotary grouped-query attention and a gated MLP: the Llama,
Mistral, Qwen2 and Qwen3 families. Any other is exported by tracing, which is always right and slower to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
NORMS, LINEARS = ("input_layernorm", "post_attention_layernorm"), ("q", "k", "v", "o", "gate", "up", "down")
PATHS = {
    **{name: f"self_attn.{name}_proj" for name in "qkvo"},
    **{name: f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
"""Where the linears of a layer are in transformers' names."""


@dataclass(frozen=True)
class Architecture:
    """The sizes and choices of one decoder; `window` is the sliding window of attention, or None."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    epsilon: float
    qk_norm: bool
    window: int | None

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Width of all key heads."""
        return self.kv_heads * self.head_size


def architecture_of(config: Any) -> Architecture | str:
    """The architecture of a transformers config object, or the reason why its decoder is not written directly."""
    kind = config.model_type
    if kind not in FAMILIES:
        return f"{kind} is none of {', '.join(FAMILIES)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    types = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    if len(set(types)) > 1:
        return "its layers attend in different ways"
    if types and types[0] == "full_attention":
        window = None
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size % 16:
        return f"its head size {size} is no multiple of 16, which onnxruntime's attention needs"
    return Architecture(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=size,
        vocabulary=config.vocab_size,
        epsilon=config.rms_norm_eps,
        qk_norm=kind == "qwen3",
        window=window,
    )


def unexpected(shape: Architecture, state: Any) -> str | None:
    """Why these weights are not those of a plain decoder of this architecture, or None."""
    wanted = set(names(shape))
    given = {key for key in state if not key.endswith("_proj.bias") and key != "lm_head.weight"}
    odd = sorted(given ^ wanted)
    return f"{odd[0]} is {'missing' if odd[0] in wanted else 'one weight too many'}" if odd else None


def names(shape: Architecture) -> Iterator[str]:
    """transformers' names of every weight that such a decoder has, biases and head apart."""
    yield "model.embed_tokens.weight"
    yield "model.norm.weight"
    for i in range(shape.layers):
        for norm in NORMS:
            yield f"model.layers.{i}.{norm}.weight"
        for name in LINEARS:
            yield f"model.layers.{i}.{PATHS[name]}.weight"
        if shape.qk_norm:
            yield f"model.layers.{i}.self_attn.q_norm.weight"
            yield f"model.layers.{i}.self_attn.k_norm.weight"
