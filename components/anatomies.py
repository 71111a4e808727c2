"""Anatomies of the hosts that transformers and timm build: where each canonical site is in each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from assembler.anatomy import Anatomy, Place, Slice, class_names, joined, register_anatomy

if TYPE_CHECKING:
    from torch import nn

Sites = Mapping[str, Place]


def nested(path: str, sites: Sites, prefix: str = "") -> dict[str, Place]:
    """The same sites, named below `prefix`, in a host that holds the described module at `path`."""
    return {joined(prefix, site): _moved(path, place) for site, place in sites.items()}


def _moved(path: str, place: Place) -> Place:
    if isinstance(place, tuple):
        return tuple(Slice(one).under(path) if isinstance(one, str) else one.under(path) for one in place)
    return joined(path, place) if isinstance(place, str) else place.under(path)


def fused(path: str, names: tuple[str, ...], site: str) -> dict[str, Place]:
    """The site of a fused projection, and the sites that are its equal slices, in order."""
    parent = site.rpartition(".")[0]
    slices: dict[str, Place] = {f"{parent}.{name}": Slice(path, i, len(names)) for i, name in enumerate(names)}
    return {site: path, **slices}


def attention(path: str, q: str, k: str, v: str, o: str, site: str = "layers.{i}.attn") -> dict[str, Place]:
    """The site of an attention module and of its four projections, given by their names below it."""
    return {site: path, **{f"{site}.{n}": f"{path}.{p}" for n, p in zip("qkvo", (q, k, v, o), strict=True)}}


PROJ = ("q_proj", "k_proj", "v_proj", "o_proj")
OUT_PROJ = ("q_proj", "k_proj", "v_proj", "out_proj")

LLAMA: Sites = {
    "embed": "embed_tokens",
    "layers.{i}": "layers.{i}",
    "layers.{i}.norm1": "layers.{i}.input_layernorm",
    **attention("layers.{i}.self_attn", *PROJ),
    "layers.{i}.norm2": "layers.{i}.post_attention_layernorm",
    "layers.{i}.mlp": "layers.{i}.mlp",
    "layers.{i}.mlp.gate": "layers.{i}.mlp.gate_proj",
    "layers.{i}.mlp.up": "layers.{i}.mlp.up_proj",
    "layers.{i}.mlp.down": "layers.{i}.mlp.down_proj",
    "final": "norm",
}
# Sandwich norms: transformers calls the norm after attention what Llama calls the norm before the MLP.
GEMMA2: Sites = {
    **LLAMA,
    "layers.{i}.norm1_out": "layers.{i}.post_attention_layernorm",
    "layers.{i}.norm2": "layers.{i}.pre_feedforward_layernorm",
    "layers.{i}.norm2_out": "layers.{i}.post_feedforward_layernorm",
}
GPT2: Sites = {
    "embed": "wte",
    "layers.{i}": "h.{i}",
    "layers.{i}.norm1": "h.{i}.ln_1",
    "layers.{i}.attn": "h.{i}.attn",
    **fused("h.{i}.attn.c_attn", ("q", "k", "v"), "layers.{i}.attn.qkv"),
    "layers.{i}.attn.o": "h.{i}.attn.c_proj",
    "layers.{i}.norm2": "h.{i}.ln_2",
    "layers.{i}.mlp": "h.{i}.mlp",
    "layers.{i}.mlp.up": "h.{i}.mlp.c_fc",
    "layers.{i}.mlp.down": "h.{i}.mlp.c_proj",
    "final": "ln_f",
}
# Post-norm: `attn` includes its residual and norm1, there is no module for the whole MLP and no final norm.
BERT: Sites = {
    "embed": "embeddings.word_embeddings",
    "layers.{i}": "encoder.layer.{i}",
    **attention("encoder.layer.{i}.attention", "self.query", "self.key", "self.value", "output.dense"),
    "layers.{i}.norm1": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.mlp.up": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.mlp.down": "encoder.layer.{i}.output.dense",
    "layers.{i}.norm2": "encoder.layer.{i}.output.LayerNorm",
}
VIT: Sites = {
    "embed": "embeddings.patch_embeddings.projection",
    "layers.{i}": "layers.{i}",
    "layers.{i}.norm1": "layers.{i}.layernorm_before",
    **attention("layers.{i}.attention", *PROJ),
    "layers.{i}.norm2": "layers.{i}.layernorm_after",
    "layers.{i}.mlp": "layers.{i}.mlp",
    "layers.{i}.mlp.up": "layers.{i}.mlp.fc1",
    "layers.{i}.mlp.down": "layers.{i}.mlp.fc2",
    "final": "layernorm",
}
TIMM: Sites = {
    "embed": "patch_embed.proj",
    "layers.{i}": "blocks.{i}",
    "layers.{i}.norm1": "blocks.{i}.norm1",
    "layers.{i}.attn": "blocks.{i}.attn",
    **fused("blocks.{i}.attn.qkv", ("q", "k", "v"), "layers.{i}.attn.qkv"),
    "layers.{i}.attn.o": "blocks.{i}.attn.proj",
    "layers.{i}.norm2": "blocks.{i}.norm2",
    "layers.{i}.mlp": "blocks.{i}.mlp",
    "layers.{i}.mlp.gate": "blocks.{i}.mlp.fc1_g",
    "layers.{i}.mlp.up": ("blocks.{i}.mlp.fc1_x", "blocks.{i}.mlp.fc1"),
    "layers.{i}.mlp.down": "blocks.{i}.mlp.fc2",
    "final": ("norm", "fc_norm"),
    "head": "head",
}
# EVA leaves qkv unfused in some of its models.
SPLIT_QKV: Sites = {
    f"layers.{{i}}.attn.{n}": (f"blocks.{{i}}.attn.{n}_proj", Slice("blocks.{i}.attn.qkv", index, 3))
    for index, n in enumerate("qkv")
}
CLIP_TOWER: Sites = {
    "layers.{i}": "encoder.layers.{i}",
    "layers.{i}.norm1": "encoder.layers.{i}.layer_norm1",
    **attention("encoder.layers.{i}.self_attn", *OUT_PROJ),
    "layers.{i}.norm2": "encoder.layers.{i}.layer_norm2",
    "layers.{i}.mlp": "encoder.layers.{i}.mlp",
    "layers.{i}.mlp.up": "encoder.layers.{i}.mlp.fc1",
    "layers.{i}.mlp.down": "encoder.layers.{i}.mlp.fc2",
}
# CLIP applies the vision tower's final norm to the pooled token alone, not to the patches.
CLIP_VISION: Sites = {"embed": "embeddings.patch_embedding", **CLIP_TOWER, "final": "post_layernorm"}
CLIP_TEXT: Sites = {"embed": "embeddings.token_embedding", **CLIP_TOWER, "final": "final_layer_norm"}
SIGLIP_VISION: Sites = {**CLIP_VISION, "head": "head"}
SIGLIP_TEXT: Sites = {**CLIP_TEXT, "head": "head"}

WHISPER_ENCODER: Sites = {
    "embed": "conv2",
    "layers.{i}": "layers.{i}",
    "layers.{i}.norm1": "layers.{i}.self_attn_layer_norm",
    **attention("layers.{i}.self_attn", *OUT_PROJ),
    "layers.{i}.norm2": "layers.{i}.final_layer_norm",
    "layers.{i}.mlp.up": "layers.{i}.fc1",
    "layers.{i}.mlp.down": "layers.{i}.fc2",
    "final": "layer_norm",
}
WHISPER_DECODER: Sites = {
    **WHISPER_ENCODER,
    "embed": "embed_tokens",
    "layers.{i}.norm_cross": "layers.{i}.encoder_attn_layer_norm",
    **attention("layers.{i}.encoder_attn", *OUT_PROJ, site="layers.{i}.cross"),
}
WHISPER: Sites = {**nested("encoder", WHISPER_ENCODER, "encoder"), **nested("decoder", WHISPER_DECODER, "decoder")}


def towers(vision: Sites, text: Sites) -> dict[str, Place]:
    """The sites of a host with a vision and a text tower."""
    return {**nested("vision_model", vision, "vision"), **nested("text_model", text, "text")}


# Name of the table: the classes that it describes, and their sites.
HOSTS: dict[str, tuple[tuple[str, ...], Sites]] = {
    "bert": (("BertModel", "RobertaModel"), BERT),
    "clip": (
        ("CLIPModel",),
        {**towers(CLIP_VISION, CLIP_TEXT), "vision.head": "visual_projection", "text.head": "text_projection"},
    ),
    "clip_text": (("CLIPTextModel",), CLIP_TEXT),
    "clip_vision": (("CLIPVisionModel",), CLIP_VISION),
    "gemma2": (("Gemma2Model", "Gemma3TextModel"), GEMMA2),
    "gpt2": (("GPT2Model",), GPT2),
    "llama": (("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "GemmaModel", "SmolLM3Model"), LLAMA),
    "siglip": (("SiglipModel",), towers(SIGLIP_VISION, SIGLIP_TEXT)),
    "siglip_text": (("SiglipTextModel",), SIGLIP_TEXT),
    "siglip_vision": (("SiglipVisionModel",), SIGLIP_VISION),
    "vit": (("ViTModel",), VIT),
    "whisper": (("WhisperModel",), WHISPER),
    "whisper_decoder": (("WhisperDecoder",), WHISPER_DECODER),
    "whisper_encoder": (("WhisperEncoder",), WHISPER_ENCODER),
}

LLAMAS = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "SmolLM3")
# Classes that put a head on a described host: the host's table, where they hold it, and the linear that gives logits.
WRAPPERS: dict[tuple[str, ...], tuple[str, str, str]] = {
    tuple(f"{name}ForCausalLM" for name in LLAMAS): ("llama", "model", "lm_head"),
    tuple(f"{name}ForSequenceClassification" for name in LLAMAS): ("llama", "model", "score"),
    ("Gemma2ForCausalLM", "Gemma3ForCausalLM"): ("gemma2", "model", "lm_head"),
    ("Gemma2ForSequenceClassification", "Gemma3TextForSequenceClassification"): ("gemma2", "model", "score"),
    ("GPT2LMHeadModel",): ("gpt2", "transformer", "lm_head"),
    ("GPT2ForSequenceClassification",): ("gpt2", "transformer", "score"),
    ("BertForMaskedLM",): ("bert", "bert", "cls.predictions.decoder"),
    ("BertForSequenceClassification", "BertForTokenClassification"): ("bert", "bert", "classifier"),
    ("RobertaForMaskedLM",): ("bert", "roberta", "lm_head.decoder"),
    ("RobertaForSequenceClassification",): ("bert", "roberta", "classifier.out_proj"),
    ("RobertaForTokenClassification",): ("bert", "roberta", "classifier"),
    ("ViTForImageClassification",): ("vit", "vit", "classifier"),
    ("CLIPVisionModelWithProjection",): ("clip_vision", "vision_model", "visual_projection"),
    ("CLIPTextModelWithProjection",): ("clip_text", "text_model", "text_projection"),
    ("WhisperForConditionalGeneration",): ("whisper", "model", "proj_out"),
    ("WhisperForAudioClassification",): ("whisper_encoder", "encoder", "classifier"),
}


TIMM_CLASSES = {"timm_vit": "timm.models.vision_transformer.VisionTransformer", "timm_eva": "timm.models.eva.Eva"}
# The order of the halves when timm computes gate and up in one projection, `GluMlp` (empty: in two, or no gate).
GLU_ORDERS: dict[str, tuple[str, ...]] = {"": (), "_gate_up": ("gate", "up"), "_up_gate": ("up", "gate")}


def timm_table(family: str, order: tuple[str, ...], bypassed: bool) -> dict[str, Place]:
    """The sites of a timm host, by the order of its fused MLP and by whether its attention bypasses `qkv`.

    EVA with biases on q and v alone reads the weight of `qkv` and never calls the module, so that nothing put there
    would be computed: such hosts have no q, k and v sites.
    """
    glu = fused("blocks.{i}.mlp.fc1", order, "layers.{i}.mlp." + "_".join(order)) if order else {}
    sites: dict[str, Place] = {**TIMM, **(SPLIT_QKV if family == "timm_eva" else {}), **glu}
    gone = {f"layers.{{i}}.attn.{name}" for name in ("q", "k", "v", "qkv")} if bypassed else set()
    return {site: place for site, place in sites.items() if site not in gone}


def _timm(family: str, order: tuple[str, ...], bypassed: bool) -> Callable[[nn.Module], bool]:
    """A predicate: a timm host of this family, fused MLP and attention."""

    def matches(module: nn.Module) -> bool:
        return TIMM_CLASSES[family] in class_names(module) and (_glu_order(module), _bypasses_qkv(module)) == (
            order,
            bypassed,
        )

    return matches


def _glu_order(module: nn.Module) -> tuple[str, ...]:
    last = next((m.gate_last for m in module.modules() if type(m).__name__ == "GluMlp"), None)
    return () if last is None else ("up", "gate") if last else ("gate", "up")


def _bypasses_qkv(module: nn.Module) -> bool:
    return any(
        getattr(m, "qkv", None) is not None
        and getattr(m, "q_bias", None) is not None
        and not getattr(m, "qkv_bias_separate", False)
        for m in module.modules()
    )


ANATOMIES: tuple[Anatomy, ...] = (
    *(Anatomy(name, classes, sites) for name, (classes, sites) in HOSTS.items()),
    *(
        Anatomy(f"{name}+{classes[0]}", classes, {**nested(path, HOSTS[name][1]), "head": head})
        for classes, (name, path, head) in WRAPPERS.items()
    ),
    *(
        Anatomy(
            family + suffix + ("_bypassed_qkv" if bypassed else ""),
            _timm(family, order, bypassed),
            timm_table(family, order, bypassed),
        )
        for family in TIMM_CLASSES
        for suffix, order in GLU_ORDERS.items()
        for bypassed in (False, True)
    ),
)
for _anatomy in ANATOMIES:
    register_anatomy(_anatomy)
