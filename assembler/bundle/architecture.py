"""Which decoders are written directly, and what a writer has to know of them: read from a transformers config.

A decoder is described here when its layers are pre-normed attention and an MLP as in the Llama, Mistral, Qwen2, Qwen3,
Gemma (1 to 3) and GPT-2 families. Any other is exported by tracing, which is always right and slower to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

GEMMAS = ("gemma", "gemma2", "gemma3_text")
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", *GEMMAS, "gpt2")
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}
"""transformers' name -> the writer's; GELU is the tanh form."""
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
PATHS = {
    **{name: f"self_attn.{name}_proj" for name in "qkvo"},
    **{name: f"mlp.{name}_proj" for name in ("gate", "up", "down")},
}
"""Where the linears of a layer are in Llama's names, which every family's weights are brought to."""
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class Architecture:
    """The sizes and choices of one decoder.

    Attributes:
        kinds: how each layer attends, FULL or SLIDING, the latter over `window` positions.
        centred: norms are LayerNorm with a bias, else RMSNorm.
        rotary: positions turn queries and keys; else learned ones are added to the embeddings.
        gated: the MLP is down(act(gate(x)) * up(x)), else down(act(up(x))).
        sandwich: what attention and the MLP give is normed before it is added.
        scale: of the attention's scores; None is 1 / sqrt(head size).
        softcap, head_softcap: c in c tanh(s / c) of the scores and of the logits, 0 for none.
        embed_scale: factor on the embeddings of tokens.
    """

    kind: str
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    positions: int
    epsilon: float
    kinds: tuple[str, ...]
    window: int | None = None
    qk_norm: bool = False
    activation: str = "silu"
    centred: bool = False
    rotary: bool = True
    gated: bool = True
    sandwich: bool = False
    scale: float | None = None
    softcap: float = 0.0
    head_softcap: float = 0.0
    embed_scale: float = 1.0

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.kinds)

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Width of all key heads."""
        return self.kv_heads * self.head_size

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms of a layer on the stream: before attention and, last, before the MLP."""
        after = "post_attention_layernorm"
        more = (after, "post_feedforward_layernorm", "pre_feedforward_layernorm") if self.sandwich else (after,)
        return ("input_layernorm", *more)


def architecture_of(config: Any) -> Architecture | str:
    """The architecture of a transformers config object, or the reason why its decoder is not written directly."""
    kind = config.model_type
    if kind not in FAMILIES:
        return f"{kind} is none of {', '.join(FAMILIES)}"
    shape = _gpt2(config) if kind == "gpt2" else _rotary(config)
    if isinstance(shape, str):
        return shape
    if shape.head_size % 16:
        return f"its head size {shape.head_size} is no multiple of 16, which onnxruntime's attention needs"
    return shape


def _gpt2(config: Any) -> Architecture | str:
    if config.activation_function not in ACTIVATIONS:
        return f"its activation is {config.activation_function}, not one of {', '.join(ACTIVATIONS)}"
    if config.scale_attn_by_inverse_layer_idx or config.add_cross_attention:
        return "its attention is not the plain one of GPT-2"
    return Architecture(
        kind="gpt2",
        hidden=config.n_embd,
        heads=config.n_head,
        kv_heads=config.n_head,
        head_size=config.n_embd // config.n_head,
        vocabulary=config.vocab_size,
        positions=config.n_positions,
        epsilon=config.layer_norm_epsilon,
        kinds=(FULL,) * config.n_layer,
        activation=ACTIVATIONS[config.activation_function],
        centred=True,
        rotary=False,
        gated=False,
        scale=None if config.scale_attn_weights else 1.0,
    )


def _rotary(config: Any) -> Architecture | str:
    kind = config.model_type
    gemma, sandwich = kind in GEMMAS, kind in GEMMAS[1:]
    activation = config.hidden_activation if sandwich else config.hidden_act
    if activation not in ACTIVATIONS:
        return f"its activation is {activation}, not one of {', '.join(ACTIVATIONS)}"
    if getattr(config, "use_bidirectional_attention", False):
        return "its attention looks ahead"
    window = getattr(config, "sliding_window", None)
    kinds = tuple(
        getattr(config, "layer_types", None) or (FULL if window is None else SLIDING,) * config.num_hidden_layers
    )
    if not set(kinds) <= {FULL, SLIDING}:
        return f"its layers attend in other ways: {', '.join(sorted(set(kinds) - {FULL, SLIDING}))}"
    return Architecture(
        kind=kind,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        epsilon=config.rms_norm_eps,
        kinds=kinds,
        window=window if SLIDING in kinds else None,
        qk_norm=kind in ("qwen3", "gemma3_text"),
        activation=ACTIVATIONS[activation],
        sandwich=sandwich,
        scale=config.query_pre_attn_scalar**-0.5 if sandwich else None,
        softcap=(config.attn_logit_softcapping or 0.0) if kind == "gemma2" else 0.0,
        head_softcap=(config.final_logit_softcapping or 0.0) if sandwich else 0.0,
        embed_scale=config.hidden_size**0.5 if gemma else 1.0,
    )


def canonical(shape: Architecture, weights: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The weights of a decoder under Llama's names, matrices [out, in], norms as factors."""
    if shape.kind == "gpt2":
        return dict(_from_gpt2(weights))
    if shape.kind in GEMMAS:
        return {key: x + np.float32(1) if key.endswith("norm.weight") else x for key, x in weights.items()}
    return weights


GPT2 = {"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm", "attn.c_proj": PATHS["o"]}
GPT2 |= {"mlp.c_fc": PATHS["up"], "mlp.c_proj": PATHS["down"]}
TOP = {"wte": "model.embed_tokens", "wpe": "model.positions", "ln_f": "model.norm"}


def _from_gpt2(weights: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """GPT-2's weights by Llama's names; its linears are [in, out], and q, k and v are one."""
    for key, x in weights.items():
        stem, _, field = key.removeprefix("transformer.").rpartition(".")
        block, _, layer = stem.removeprefix("h.").partition(".")
        x = x.T if field == "weight" and ".c_" in key else x
        if layer == "attn.c_attn":
            for name, part in zip("qkv", np.split(x, 3), strict=True):
                yield f"model.layers.{block}.{PATHS[name]}.{field}", part
        elif layer in GPT2:
            yield f"model.layers.{block}.{GPT2[layer]}.{field}", x
        else:
            yield f"{TOP.get(stem, stem)}.{field}", x


def canonical_path(shape: Architecture, path: str, index: int = 0) -> str | None:
    """Where a linear of transformers' model, or the part `index` of a fused one, is in Llama's names."""
    if shape.kind != "gpt2":
        return path if any(path.endswith(end) for end in PATHS.values()) else None
    block, _, layer = path.removeprefix("transformer.h.").partition(".")
    end = PATHS["qkv"[index]] if layer == "attn.c_attn" else GPT2.get(layer, "")
    return f"model.layers.{block}.{end}" if end in PATHS.values() else None


def unexpected(shape: Architecture, state: Any) -> str | None:
    """Why these weights, by Llama's names, are not those of a plain decoder of this architecture, or None."""
    wanted = set(names(shape))
    given = {key for key in state if not key.endswith("_proj.bias") and key != "lm_head.weight"}
    odd = sorted(given ^ wanted)
    return f"{odd[0]} is {'missing' if odd[0] in wanted else 'one weight too many'}" if odd else None


def names(shape: Architecture) -> Iterator[str]:
    """The canonical names of every weight that such a decoder has, biases of linears and head apart."""
    yield "model.embed_tokens.weight"
    if not shape.rotary:
        yield "model.positions.weight"
    norms = ["model.norm", *(f"model.layers.{i}.{norm}" for i in range(shape.layers) for norm in shape.norms)]
    for norm in norms:
        yield f"{norm}.weight"
        if shape.centred:
            yield f"{norm}.bias"
    for i in range(shape.layers):
        for name in LINEARS:
            if name != "gate" or shape.gated:
                yield f"model.layers.{i}.{PATHS[name]}.weight"
        if shape.qk_norm:
            yield f"model.layers.{i}.self_attn.q_norm.weight"
            yield f"model.layers.{i}.self_attn.k_norm.weight"
