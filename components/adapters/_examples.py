"""Tiny specs with one adapter named `part`, for the `examples` of adapter parts."""

from __future__ import annotations

from typing import Any

Example = tuple[dict[str, Any], int | None]

WIDTH, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 32, 48, 2, 4, 2, 300
"""Of the tiny Llama: hidden size, the MLP's width, layers, heads, key and value heads, words."""
VIT_WIDTH, VIT_INNER, VIT_LAYERS = 64, 192, 6
"""Of timm's test_vit."""

CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
}


def on_llama(adapter: str, count: int | None, **options: Any) -> Example:
    """The adapter in a tiny Llama, and the parameters its formula gives there."""
    lm = {"type": "backbone.causal_lm", "arch": "llama", "config": CONFIG, "prompt": "{question} {answer}"}
    return {"nodes": {"talk": lm}, "adapters": {"part": {"type": adapter, "host": "talk", **options}}}, count


def on_vit(adapter: str, count: int | None, **options: Any) -> Example:
    """The adapter in timm's smallest vision transformer, and the parameters its formula gives there."""
    nodes = {
        "photo": {"type": "input.image", "size": [32, 32]},
        "eyes": {"type": "encoder.timm", "model": "test_vit"},
    }
    part = {"type": adapter, "host": "eyes", **options}
    return {"nodes": nodes, "edges": ["photo -> eyes"], "adapters": {"part": part}}, count
