"""Anatomies of the hosts that transformers and timm build: where each canonical site is in each family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from assembler.anatomy import Anatomy, Place, Slice, class_names, joined, register_anatomy

if TYPE_CHECKING:
    from torch import nn

Sites = Mapping[str, Place]
Points = Mapping[str, tuple[str, str]]


def nested(path: str, sites: Sites, prefix: str = "") -> dict[str, Place]:
    """The same sites, named below `prefix`, in a host that holds the described module at `path`."""
    return {joined(prefix, site): _moved(path, place) for site, place in sites.items()}


def nested_points(path: str, points: Points, prefix: str = "") -> dict[str, tuple[str, str]]:
    """The same for points."""
    return {joined(prefix, point): (joined(path, place), side) for point, (place, side) in points.items()}


def _moved(path: str, place: Place) -> Place:
    if isinstance(place, tuple):
        return tuple(Slice(one).under(path) if isinstance(one, str) else one.under(path) for one in place)
    return joined(path, place) if isinstance(place, str) else place.under(path)


def _swapped(place: Place, old: str, new: str) -> Place:
    if isinstance(place, tuple):
        return tuple(one.replace(old, new) for one in place if isinstance(one, str))
    return place.replace(old, new) if isinstance(place, str) else place


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
    "embed_norm": "embeddings.LayerNorm",
    "layers.{i}": "encoder.layer.{i}",
    **attention("encoder.layer.{i}.attention", "self.query", "self.key", "self.value", "output.dense"),
    "layers.{i}.norm1": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.mlp.up": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.mlp.down": "encoder.layer.{i}.output.dense",
    "layers.{i}.norm2": "encoder.layer.{i}.output.LayerNorm",
}
# The norms come after the additions, so that what a sub-layer adds is found before them, after the dropout.
BERT_POINTS: Points = {
    "layers.{i}.attn.core": ("encoder.layer.{i}.attention.self", ""),
    "layers.{i}.attn.out": ("encoder.layer.{i}.attention.output.dropout", "out"),
    "layers.{i}.mid": ("encoder.layer.{i}.attention.output.LayerNorm", "out"),
    "layers.{i}.mlp.out": ("encoder.layer.{i}.output.dropout", "out"),
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

DINOV2: Sites = {
    "embed": "embeddings.patch_embeddings.projection",
    "layers.{i}": "encoder.layer.{i}",
    "layers.{i}.norm1": "encoder.layer.{i}.norm1",
    **attention("encoder.layer.{i}.attention", *PROJ),
    "layers.{i}.norm2": "encoder.layer.{i}.norm2",
    "layers.{i}.mlp": "encoder.layer.{i}.mlp",
    "layers.{i}.mlp.up": "encoder.layer.{i}.mlp.fc1",
    "layers.{i}.mlp.down": "encoder.layer.{i}.mlp.fc2",
    "final": "layernorm",
}
# timm and DINOv2 scale what a sub-layer adds, and may drop it whole in training.
DINOV2_POINTS: Points = {
    "layers.{i}.attn.out": ("encoder.layer.{i}.layer_scale1", "out"),
    "layers.{i}.mlp.out": ("encoder.layer.{i}.layer_scale2", "out"),
}
TIMM_POINTS: Points = {
    "layers.{i}.attn.out": ("blocks.{i}.drop_path1", "out"),
    "layers.{i}.mlp.out": ("blocks.{i}.drop_path2", "out"),
}
STAGES = range(10)


def convolved(stage: str, embed: str, first: int, **names: Place) -> dict[str, Place]:
    """The sites of a network of stages of blocks; each stage is a stack of layers, at the path `stage` with its number.

    Their convolutions lie differently in each kind of block, so that only the norms, in order, are sites.
    """
    sites: dict[str, Place] = {"embed": embed, "embed_norm": "bn1", **names}
    for i in STAGES:
        block = f"{stage.format(i + first)}.{{i}}"
        sites[f"stage{i}.layers.{{i}}"] = block
        sites |= {f"stage{i}.layers.{{i}}.norm{n}": f"{block}.bn{n}" for n in (1, 2, 3)}
    return sites


EFFICIENTNET: Sites = convolved("blocks.{}", "conv_stem", 0, final="bn2", head="classifier")
RESNET: Sites = convolved("layer{}", "conv1", 1, head="fc")
POINT_TRANSFORMER: Sites = {**nested("blocks", TIMM), "embed": "encoder", "final": "norm"}
# A state space has no attention; what it reads and lets through is one projection.
SCMAMBA: Sites = {
    "layers.{i}": "layers.{i}",
    "layers.{i}.norm1": "layers.{i}.norm",
    "layers.{i}.mixer": "layers.{i}.mixer",
    **fused("layers.{i}.mixer.in_proj", ("x", "gate"), "layers.{i}.mixer.x_gate"),
    "layers.{i}.mixer.o": "layers.{i}.mixer.out_proj",
    "final": "norm",
}
# open_clip's attention reads the weights of its projections and never calls them, so that q, k, v and o are no sites.
OPEN_CLIP_BLOCKS: Sites = {
    "layers.{i}": "transformer.resblocks.{i}",
    "layers.{i}.norm1": "transformer.resblocks.{i}.ln_1",
    "layers.{i}.attn": "transformer.resblocks.{i}.attn",
    "layers.{i}.norm2": "transformer.resblocks.{i}.ln_2",
    "layers.{i}.mlp": "transformer.resblocks.{i}.mlp",
    "layers.{i}.mlp.up": "transformer.resblocks.{i}.mlp.c_fc",
    "layers.{i}.mlp.down": "transformer.resblocks.{i}.mlp.c_proj",
}
OPEN_CLIP_POINTS: Points = {
    "layers.{i}.attn.out": ("transformer.resblocks.{i}.ls_1", "out"),
    "layers.{i}.mlp.out": ("transformer.resblocks.{i}.ls_2", "out"),
}
OPEN_CLIP_VISION: Sites = {"embed": "conv1", **OPEN_CLIP_BLOCKS, "final": "ln_post"}
OPEN_CLIP_TEXT: Sites = {"embed": "token_embedding", **OPEN_CLIP_BLOCKS, "final": "ln_final"}

T5_ENCODER: Sites = {
    "embed": "embed_tokens",
    "layers.{i}": "block.{i}",
    "layers.{i}.norm1": "block.{i}.layer.0.layer_norm",
    **attention("block.{i}.layer.0.SelfAttention", "q", "k", "v", "o"),
    "layers.{i}.norm2": "block.{i}.layer.1.layer_norm",
    "layers.{i}.mlp": "block.{i}.layer.1.DenseReluDense",
    "layers.{i}.mlp.gate": "block.{i}.layer.1.DenseReluDense.wi_0",
    "layers.{i}.mlp.up": ("block.{i}.layer.1.DenseReluDense.wi_1", "block.{i}.layer.1.DenseReluDense.wi"),
    "layers.{i}.mlp.down": "block.{i}.layer.1.DenseReluDense.wo",
    "final": "final_layer_norm",
}
T5_DECODER: Sites = {
    **{site: _swapped(place, ".layer.1.", ".layer.2.") for site, place in T5_ENCODER.items()},
    "layers.{i}.norm_cross": "block.{i}.layer.1.layer_norm",
    **attention("block.{i}.layer.1.EncDecAttention", "q", "k", "v", "o", site="layers.{i}.cross"),
}
T5_ENCODER_POINTS: Points = {
    "layers.{i}.attn.out": ("block.{i}.layer.0.dropout", "out"),
    "layers.{i}.mlp.out": ("block.{i}.layer.1.dropout", "out"),
}
T5_DECODER_POINTS: Points = {
    "layers.{i}.attn.out": ("block.{i}.layer.0.dropout", "out"),
    "layers.{i}.cross.out": ("block.{i}.layer.1.dropout", "out"),
    "layers.{i}.mlp.out": ("block.{i}.layer.2.dropout", "out"),
}
T5: Sites = {**nested("encoder", T5_ENCODER, "encoder"), **nested("decoder", T5_DECODER, "decoder")}
T5_POINTS = {
    **nested_points("encoder", T5_ENCODER_POINTS, "encoder"),
    **nested_points("decoder", T5_DECODER_POINTS, "decoder"),
}

SPEECH: Sites = {
    "embed": "feature_projection.projection",
    "layers.{i}": "encoder.layers.{i}",
    "layers.{i}.norm1": "encoder.layers.{i}.layer_norm",
    **attention("encoder.layers.{i}.attention", *OUT_PROJ),
    "layers.{i}.norm2": "encoder.layers.{i}.final_layer_norm",
    "layers.{i}.mlp": "encoder.layers.{i}.feed_forward",
    "layers.{i}.mlp.up": "encoder.layers.{i}.feed_forward.intermediate_dense",
    "layers.{i}.mlp.down": "encoder.layers.{i}.feed_forward.output_dense",
}
SPEECH_POINTS: Points = {
    "layers.{i}.attn.out": ("encoder.layers.{i}.dropout", "out"),
    "layers.{i}.mid": ("encoder.layers.{i}.layer_norm", "out"),
}
# The large models norm before each sub-layer and once at the end.
SPEECH_STABLE: Sites = {**SPEECH, "final": "encoder.layer_norm"}
SPEECH_STABLE_POINTS: Points = {"layers.{i}.attn.out": ("encoder.layers.{i}.dropout", "out")}
SPEECH_CLASSES = {"Wav2Vec2": "wav2vec2", "Hubert": "hubert", "WavLM": "wavlm", "Data2VecAudio": "data2vec_audio"}
"""transformers' family -> where its heads hold the bare model."""

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
    "ast": (("ASTModel",), VIT),
    "bert": (("BertModel", "RobertaModel", "XLMRobertaModel", "GeneTransformerTower"), BERT),
    "clip": (
        ("CLIPModel",),
        {**towers(CLIP_VISION, CLIP_TEXT), "vision.head": "visual_projection", "text.head": "text_projection"},
    ),
    "clipseg": (
        ("CLIPSegForImageSegmentation",),
        {
            **nested("clip", towers(CLIP_VISION, CLIP_TEXT)),
            "text": "clip.text_model",
            "text.head": "clip.text_projection",
            "decoder.reduce.{i}": "decoder.reduces.{i}",
        },
    ),
    "clip_text": (("CLIPTextModel",), CLIP_TEXT),
    "clip_vision": (("CLIPVisionModel",), CLIP_VISION),
    "dinov2": (("Dinov2Model", "Dinov2WithRegistersModel"), DINOV2),
    "efficientnet": (("timm.models.efficientnet.EfficientNet", "timm.models.mobilenetv3.MobileNetV3"), EFFICIENTNET),
    "gemma2": (("Gemma2Model", "Gemma3TextModel"), GEMMA2),
    "gpt2": (("GPT2Model",), GPT2),
    "llama": (("LlamaModel", "MistralModel", "Qwen2Model", "Qwen3Model", "GemmaModel", "SmolLM3Model"), LLAMA),
    "resnet": (("timm.models.resnet.ResNet",), RESNET),
    "scmamba": (("ScMamba",), SCMAMBA),
    "siglip": (("SiglipModel",), towers(SIGLIP_VISION, SIGLIP_TEXT)),
    "siglip_text": (("SiglipTextModel",), SIGLIP_TEXT),
    "siglip_vision": (("SiglipVisionModel",), SIGLIP_VISION),
    "open_clip_text": (("open_clip.transformer.TextTransformer",), OPEN_CLIP_TEXT),
    "open_clip_vision": (("open_clip.transformer.VisionTransformer",), OPEN_CLIP_VISION),
    "point_transformer": (("PointTransformerTower",), POINT_TRANSFORMER),
    "t5": (("T5Model", "T5ForConditionalGeneration"), {**T5, "head": "lm_head"}),
    "t5_encoder": (
        ("T5EncoderModel",),
        {**nested("encoder", T5_ENCODER), "embed": ("encoder.embed_tokens", "shared")},
    ),
    "vit": (("ViTModel",), VIT),
    "whisper": (("WhisperModel",), WHISPER),
    "whisper_decoder": (("WhisperDecoder",), WHISPER_DECODER),
    "whisper_encoder": (("WhisperEncoder",), WHISPER_ENCODER),
}

POINTS: dict[str, Points] = {
    "bert": BERT_POINTS,
    "dinov2": DINOV2_POINTS,
    "open_clip_text": OPEN_CLIP_POINTS,
    "open_clip_vision": OPEN_CLIP_POINTS,
    "point_transformer": nested_points("blocks", TIMM_POINTS),
    "t5": T5_POINTS,
    "t5_encoder": nested_points("encoder", T5_ENCODER_POINTS),
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
    ("RobertaForMaskedLM", "XLMRobertaForMaskedLM"): ("bert", "roberta", "lm_head.decoder"),
    ("RobertaForSequenceClassification", "XLMRobertaForSequenceClassification"): (
        "bert",
        "roberta",
        "classifier.out_proj",
    ),
    ("RobertaForTokenClassification", "XLMRobertaForTokenClassification"): ("bert", "roberta", "classifier"),
    ("ASTForAudioClassification",): ("ast", "audio_spectrogram_transformer", "classifier.dense"),
    ("Dinov2ForImageClassification",): ("dinov2", "dinov2", "classifier"),
    ("Dinov2WithRegistersForImageClassification",): ("dinov2", "dinov2_with_registers", "classifier"),
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


SPEECH_HEADS = {"ForCTC": "lm_head", "ForSequenceClassification": "classifier"}


def _speech_tables() -> list[Anatomy]:
    """wav2vec 2.0, HuBERT, WavLM and data2vec-audio, base and large, bare and with a head."""
    tables = []
    for family, path in SPEECH_CLASSES.items():
        # WavLM's attention reads the weights of its projections and never calls them.
        gone = {f"layers.{{i}}.attn.{n}" for n in "qkvo"} if family == "WavLM" else set()
        for suffix, stable, sites, points in (
            ("", False, SPEECH, SPEECH_POINTS),
            ("_stable", True, SPEECH_STABLE, SPEECH_STABLE_POINTS),
        ):
            kept = {site: place for site, place in sites.items() if site not in gone}
            name = path + suffix
            tables.append(Anatomy(name, _speech(f"{family}Model", stable), kept, points))
            for ending, head in SPEECH_HEADS.items():
                wrapped = {**nested(path, kept), "head": head}
                fits = _speech(family + ending, stable)
                tables.append(Anatomy(f"{name}+{ending}", fits, wrapped, nested_points(path, points)))
    return tables


def _speech(name: str, stable: bool) -> Callable[[nn.Module], bool]:
    """A predicate: a module of the class `name` whose layers norm before (stable) or after each sub-layer."""

    def matches(module: nn.Module) -> bool:
        return (
            name in class_names(module)
            and any(type(m).__name__.endswith("EncoderStableLayerNorm") for m in module.modules()) is stable
        )

    return matches


ANATOMIES: tuple[Anatomy, ...] = (
    *(Anatomy(name, classes, sites, POINTS.get(name, {})) for name, (classes, sites) in HOSTS.items()),
    *(
        Anatomy(
            f"{name}+{classes[0]}",
            classes,
            {**nested(path, HOSTS[name][1]), "head": head},
            nested_points(path, POINTS.get(name, {})),
        )
        for classes, (name, path, head) in WRAPPERS.items()
    ),
    *_speech_tables(),
    *(
        Anatomy(
            family + suffix + ("_bypassed_qkv" if bypassed else ""),
            _timm(family, order, bypassed),
            timm_table(family, order, bypassed),
            TIMM_POINTS,
        )
        for family in TIMM_CLASSES
        for suffix, order in GLU_ORDERS.items()
        for bypassed in (False, True)
    ),
)
for _anatomy in ANATOMIES:
    register_anatomy(_anatomy)
