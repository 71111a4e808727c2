"""Tiny specs with one adapter named `part`, for the `examples` of adapter parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Example = tuple[dict[str, Any], int | None]

WIDTH, INNER, LAYERS, HEADS, KV_HEADS, VOCABULARY = 32, 48, 2, 4, 2, 300
"""Of the tiny Llama: hidden size, the MLP's width, layers, heads, key and value heads, words."""
VIT_WIDTH, VIT_INNER, VIT_LAYERS, VIT_HEADS = 64, 192, 3, 2
"""Of the tiny ViT: hidden size, the MLP's width, layers, heads."""
TIMM_LAYERS = 6
"""Of timm's test_vit, which is as wide as the tiny ViT and has q, k and v in one matrix."""
BERT_WIDTH = 16
"""Of the tiny BERT."""

CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
}


def on_llama(adapter: str, count: int | None, /, **options: Any) -> Example:
    """The adapter in a tiny Llama, and the parameters its formula gives there."""
    lm = {"type": "backbone.causal_lm", "arch": "llama", "config": CONFIG, "prompt": "{question} {answer}"}
    return {"nodes": {"talk": lm}, "adapters": {"part": {"type": adapter, "host": "talk", **options}}}, count


def on_vit(adapter: str, count: int | None, /, **options: Any) -> Example:
    """The adapter in a tiny ViT, and the parameters its formula gives there."""
    config = {
        "model_type": "vit", "hidden_size": VIT_WIDTH, "num_hidden_layers": VIT_LAYERS,
        "num_attention_heads": VIT_HEADS, "intermediate_size": VIT_INNER, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    return _seeing({"type": "encoder.hf_vision", "config": config}, adapter, options), count


def on_timm(adapter: str, count: int | None, /, model: str = "test_vit", **options: Any) -> Example:
    """The adapter in a small model of timm, and the parameters its formula gives there."""
    return _seeing({"type": "encoder.timm", "model": model}, adapter, options), count


def _seeing(eyes: dict[str, Any], adapter: str, options: dict[str, Any]) -> dict[str, Any]:
    """A picture before an encoder with the adapter."""
    nodes = {"photo": {"type": "input.image", "size": [32, 32]}, "eyes": eyes}
    return {
        "nodes": nodes,
        "edges": ["photo -> eyes"],
        "adapters": {"part": {"type": adapter, "host": "eyes", **options}},
    }


def on_bert(adapter: str, count: int | None, **options: Any) -> Example:
    """The adapter in a tiny BERT, and the parameters its formula gives there."""
    config = {
        "model_type": "bert", "hidden_size": BERT_WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "vocab_size": VOCABULARY, "max_position_embeddings": 24,
    }  # fmt: skip
    tokenizer = str(Path(__file__).parents[1] / "encoders" / "example" / "tokenizer.json")
    read = {"type": "encoder.hf_text", "config": config, "tokenizer": tokenizer, "length": 12}
    nodes = {"words": {"type": "input.text"}, "read": read}
    part = {"type": adapter, "host": "read", **options}
    return {"nodes": nodes, "edges": ["words -> read"], "adapters": {"part": part}}, count


def on_clipseg(adapter: str, count: int | None, projection: int = 12, **options: Any) -> Example:
    """The adapter in the CLIPSeg of its own example, and the parameters its formula gives there."""
    from components.encoders.clipseg import ClipSeg

    tree, _ = ClipSeg.examples()[0]
    nodes, (image, text) = tree["nodes"], tree["edges"]
    seg = {**nodes.pop("part")}
    seg["config"] = {**seg["config"], "projection_dim": projection}
    edges = [image.replace("part", "seg"), text.replace("part", "seg")]
    part = {"type": adapter, "host": "seg", **options}
    return {"nodes": {**nodes, "seg": seg}, "edges": edges, "adapters": {"part": part}}, count
