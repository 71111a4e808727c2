"""Every family's canonical sites are real modules, and patterns name exactly the sites they say."""

import re
from collections.abc import Callable

import pytest
import torch
import transformers as tf
from timm.layers import GluMlp, SwiGLUPacked
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from timm.models.eva import Eva
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from assembler.anatomy import (
    Anatomy,
    Slice,
    anatomy_of,
    places_of,
    register_anatomy,
    resolve,
    resolve_places,
    sites_of,
)
from assembler.errors import AssemblerError
from components.anatomies import ANATOMIES, HOSTS, WRAPPERS
from components.encoders._point_transformer import PointTransformerTower

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SIZE, "vocab_size": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LM = {**TEXT, "num_key_value_heads": 1, "head_dim": 8}
VISION = {**SIZE, "image_size": 16, "patch_size": 8}
TIMM = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32, "bos_token_id": 1, "eos_token_id": 2}
WHISPER = {
    "d_model": 16,
    **{f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")},
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 32}
CONVS = {"conv_dim": [8, 8], "conv_stride": [2, 2], "conv_kernel": [3, 3]}
AUDIO = {**SIZE, **CONVS, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 32}
STABLE = {**AUDIO, "do_stable_layer_norm": True}
AST = {**SIZE, "max_length": 32, "num_mel_bins": 16}
CLIP = {"text_config": {**TEXT, "projection_dim": 16}, "vision_config": {**VISION, "projection_dim": 16}}
SIGLIP = {"text_config": TEXT, "vision_config": VISION}
POINTS = {"groups": 4, "neighbours": 4, "width": 16, "depth": 2, "heads": 2, "drop_path": 0.0}

ATTN = [f"layers.{{i}}.attn{leaf}" for leaf in ("", ".q", ".k", ".v", ".o")]
LAYER = ["layers.{i}", "layers.{i}.norm1", "layers.{i}.norm2", "layers.{i}.mlp.up", "layers.{i}.mlp.down", *ATTN]
BASE = ["embed", *LAYER]
PLAIN = [*BASE, "layers.{i}.mlp", "final"]
GATED = [*PLAIN, "layers.{i}.mlp.gate"]
FUSED = [*PLAIN, "layers.{i}.attn.qkv"]
CROSS = ["layers.{i}.norm_cross", *(f"layers.{{i}}.cross{leaf}" for leaf in ("", ".q", ".k", ".v", ".o"))]
ENCODER = [*BASE, "final"]
BERT = [*BASE, "embed_norm"]
SPEECH = [*BASE, "layers.{i}.mlp"]
WAVLM = [site for site in SPEECH if not re.search(r"attn\.[qkvo]", site)]


def below(prefix: str, sites: list[str]) -> list[str]:
    return [f"{prefix}.{site}" for site in sites]


WHISPERS = below("encoder", ENCODER) + below("decoder", [*ENCODER, *CROSS])
T5S = below("encoder", PLAIN) + below("decoder", [*PLAIN, *CROSS])
TOWERS = below("vision", PLAIN) + below("text", PLAIN)
TOWERS_HEAD = [*TOWERS, "vision.head", "text.head"]

Case = tuple[Callable[[], nn.Module], list[str]]


def hf(name: str, config: str, options: dict, sites: list[str]) -> Case:
    return lambda: getattr(tf, name)(getattr(tf, config)(**options)), sites


def timm(cls: type[nn.Module], sites: list[str], **options: object) -> Case:
    return lambda: cls(**TIMM, **options), [*sites, "head"]


def convolved(name: str, sites: list[str]) -> Case:
    """A network of a stage of one depthwise separable block and one of two inverted residuals."""
    cls = {"EfficientNet": EfficientNet, "MobileNetV3": MobileNetV3}[name]
    first = ["stage0.layers.0", *(f"stage0.layers.0.norm{n}" for n in (1, 2))]
    second = ["stage1.layers.{i}", *(f"stage1.layers.{{i}}.norm{n}" for n in (1, 2, 3))]
    named = ["embed", "embed_norm", "head", *first, *second, *sites]
    stages = [["ds_r1_k3_s1_e1_c16"], ["ir_r2_k3_s2_e4_c24"]]
    return lambda: cls(decode_arch_def(stages), stem_size=16, num_features=32, num_classes=3), named


RESNET = [f"stage{s}.layers.0{leaf}" for s in range(4) for leaf in ("", ".norm1", ".norm2")]
CLIPSEG = {**CLIP, "projection_dim": 16, "reduce_dim": 8, "decoder_num_attention_heads": 2, "extract_layers": [0, 1]}

SANDWICH = [*GATED, "layers.{i}.norm1_out", "layers.{i}.norm2_out"]
CASES: dict[str, Case] = {
    **{
        f"{name}{kind}": hf(f"{name}{kind}", f"{name}Config", LM, sites)
        for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "SmolLM3")
        for kind, sites in (
            ("Model", GATED),
            ("ForCausalLM", [*GATED, "head"]),
            ("ForSequenceClassification", [*GATED, "head"]),
        )
    },
    "Gemma2Model": hf("Gemma2Model", "Gemma2Config", LM, SANDWICH),
    "Gemma2ForCausalLM": hf("Gemma2ForCausalLM", "Gemma2Config", LM, [*SANDWICH, "head"]),
    "Gemma2ForSequenceClassification": hf("Gemma2ForSequenceClassification", "Gemma2Config", LM, [*SANDWICH, "head"]),
    "Gemma3TextModel": hf("Gemma3TextModel", "Gemma3TextConfig", LM, SANDWICH),
    "Gemma3ForCausalLM": hf("Gemma3ForCausalLM", "Gemma3TextConfig", LM, [*SANDWICH, "head"]),
    "Gemma3TextForSequenceClassification": hf(
        "Gemma3TextForSequenceClassification", "Gemma3TextConfig", LM, [*SANDWICH, "head"]
    ),
    "GPT2Model": hf("GPT2Model", "GPT2Config", GPT2, FUSED),
    "GPT2LMHeadModel": hf("GPT2LMHeadModel", "GPT2Config", GPT2, [*FUSED, "head"]),
    "GPT2ForSequenceClassification": hf("GPT2ForSequenceClassification", "GPT2Config", GPT2, [*FUSED, "head"]),
    **{
        f"{name}{kind}": hf(f"{name}{kind}", f"{name}Config", TEXT, sites)
        for name in ("Bert", "Roberta", "XLMRoberta")
        for kind, sites in (
            ("Model", BERT),
            ("ForMaskedLM", [*BERT, "head"]),
            ("ForSequenceClassification", [*BERT, "head"]),
            ("ForTokenClassification", [*BERT, "head"]),
        )
    },
    "T5Model": hf("T5Model", "T5Config", T5, [*T5S]),
    "T5ForConditionalGeneration": hf("T5ForConditionalGeneration", "T5Config", T5, [*T5S, "head"]),
    "T5EncoderModel": hf("T5EncoderModel", "T5Config", T5, PLAIN),
    "T5 1.1": hf("T5EncoderModel", "T5Config", {**T5, "feed_forward_proj": "gated-gelu"}, GATED),
    **{
        f"{name}{kind}{', stable' * (options is STABLE)}": hf(
            f"{name}{kind}", f"{name}Config", options, [*sites, *head, *(["final"] if options is STABLE else [])]
        )
        for name, sites in (("Wav2Vec2", SPEECH), ("Hubert", SPEECH), ("WavLM", WAVLM))
        for kind, head in (("Model", []), ("ForCTC", ["head"]), ("ForSequenceClassification", ["head"]))
        for options in (AUDIO, STABLE)
    },
    **{
        f"Data2VecAudio{kind}": hf(f"Data2VecAudio{kind}", "Data2VecAudioConfig", AUDIO, [*SPEECH, *head])
        for kind, head in (("Model", []), ("ForCTC", ["head"]), ("ForSequenceClassification", ["head"]))
    },
    "ASTModel": hf("ASTModel", "ASTConfig", AST, PLAIN),
    "ASTForAudioClassification": hf("ASTForAudioClassification", "ASTConfig", AST, [*PLAIN, "head"]),
    **{
        f"{name}{kind}": hf(f"{name}{kind}", f"{name}Config", VISION, sites)
        for name in ("Dinov2", "Dinov2WithRegisters")
        for kind, sites in (("Model", PLAIN), ("ForImageClassification", [*PLAIN, "head"]))
    },
    "PointTransformerTower": (lambda: PointTransformerTower(3, None, False, False, nn.Identity(), **POINTS), FUSED),
    "ViTModel": hf("ViTModel", "ViTConfig", VISION, PLAIN),
    "ViTForImageClassification": hf("ViTForImageClassification", "ViTConfig", VISION, [*PLAIN, "head"]),
    "CLIPModel": hf("CLIPModel", "CLIPConfig", CLIP, TOWERS_HEAD),
    "CLIPVisionModel": hf("CLIPVisionModel", "CLIPVisionConfig", VISION, PLAIN),
    "CLIPTextModel": hf("CLIPTextModel", "CLIPTextConfig", TEXT, PLAIN),
    "CLIPVisionModelWithProjection": hf("CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION, [*PLAIN, "head"]),
    "CLIPTextModelWithProjection": hf("CLIPTextModelWithProjection", "CLIPTextConfig", TEXT, [*PLAIN, "head"]),
    "SiglipModel": hf("SiglipModel", "SiglipConfig", SIGLIP, TOWERS_HEAD),
    "SiglipVisionModel": hf("SiglipVisionModel", "SiglipVisionConfig", VISION, [*PLAIN, "head"]),
    "SiglipTextModel": hf("SiglipTextModel", "SiglipTextConfig", TEXT, [*PLAIN, "head"]),
    "WhisperModel": hf("WhisperModel", "WhisperConfig", WHISPER, WHISPERS),
    "WhisperForConditionalGeneration": hf(
        "WhisperForConditionalGeneration", "WhisperConfig", WHISPER, [*WHISPERS, "head"]
    ),
    "WhisperForAudioClassification": hf("WhisperForAudioClassification", "WhisperConfig", WHISPER, [*ENCODER, "head"]),
    "WhisperEncoder": (lambda: tf.WhisperModel(tf.WhisperConfig(**WHISPER)).encoder, ENCODER),
    "WhisperDecoder": (lambda: tf.WhisperModel(tf.WhisperConfig(**WHISPER)).decoder, [*ENCODER, *CROSS]),
    "CLIPSegForImageSegmentation": hf(
        "CLIPSegForImageSegmentation",
        "CLIPSegConfig",
        CLIPSEG,
        [*TOWERS, "text", "text.head", "decoder.reduce.{i}"],
    ),
    "timm.models.efficientnet.EfficientNet": convolved("EfficientNet", ["final"]),
    "timm.models.mobilenetv3.MobileNetV3": convolved("MobileNetV3", []),
    "timm.models.resnet.ResNet": (
        lambda: ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3),
        [*RESNET, "embed", "embed_norm", "head"],
    ),
    "timm ViT": timm(VisionTransformer, FUSED),
    "timm ViT, mean pooled": timm(VisionTransformer, FUSED, global_pool="avg"),
    "timm ViT, packed SwiGLU": timm(
        VisionTransformer, [*FUSED, "layers.{i}.mlp.gate", "layers.{i}.mlp.gate_up"], mlp_layer=SwiGLUPacked
    ),
    "timm ViT, GLU": timm(
        VisionTransformer, [*FUSED, "layers.{i}.mlp.gate", "layers.{i}.mlp.up_gate"], mlp_layer=GluMlp
    ),
    "timm EVA": timm(Eva, [site for site in FUSED if not re.search(r"attn\.[qkv]", site)]),
    "timm EVA, no bias": timm(Eva, FUSED, qkv_bias=False),
    "timm EVA, unfused": timm(Eva, PLAIN, qkv_fused=False),
    "timm EVA, packed SwiGLU": timm(
        Eva, [*FUSED, "layers.{i}.mlp.gate", "layers.{i}.mlp.gate_up"], swiglu_mlp=True, qkv_bias=False
    ),
    "timm EVA, SwiGLU": timm(Eva, [*FUSED, "layers.{i}.mlp.gate"], swiglu_mlp=True, qkv_bias=False, scale_mlp=True),
}


def concrete(sites: list[str]) -> set[str]:
    return {site.replace("{i}", str(i)) for site in sites for i in range(2)}


def on_meta(case: str) -> nn.Module:
    with torch.device("meta"):
        return CASES[case][0]()


@pytest.mark.parametrize("case", CASES)
def test_every_canonical_site_is_a_module_of_the_host(case: str) -> None:
    host = on_meta(case)
    sites = sites_of(host)
    assert set(sites) == concrete(CASES[case][1])
    modules = dict(host.named_modules(remove_duplicate=False))
    assert set(sites.values()) <= set(modules)


@pytest.mark.parametrize("case", CASES)
def test_places_are_distinct(case: str) -> None:
    places = places_of(on_meta(case))
    assert len(set(places.values())) == len(places)


@pytest.mark.parametrize("case", CASES)
def test_slices_divide_the_projection_they_are_of(case: str) -> None:
    host = on_meta(case)
    for site, place in places_of(host).items():
        if not place.whole:
            width = 16 if ".attn." in site else 64
            out = host.get_submodule(place.path).weight.numel() // 16
            assert out % place.of == 0, site
            assert ".attn." not in site or out // place.of == width


def test_every_class_in_the_tables_is_tried() -> None:
    genes = {"ScMamba", "GeneTransformerTower"}  # tests/components/test_gene_sites.py
    named = {name for classes, _ in HOSTS.values() for name in classes} | {n for names in WRAPPERS for n in names}
    assert {name for name in named if not name.startswith("open_clip.")} <= set(CASES) | genes


def test_names_of_tables_are_unique() -> None:
    assert len({anatomy.name for anatomy in ANATOMIES}) == len(ANATOMIES)


def test_attention_and_mlp_leaves_are_what_their_names_say() -> None:
    host = on_meta("LlamaForCausalLM")
    paths = dict(resolve(host, "layers.0.{attn.{q,k,v,o},mlp.{up,gate,down},norm1,norm2}"))
    assert paths == {
        "layers.0.attn.q": "model.layers.0.self_attn.q_proj",
        "layers.0.attn.k": "model.layers.0.self_attn.k_proj",
        "layers.0.attn.v": "model.layers.0.self_attn.v_proj",
        "layers.0.attn.o": "model.layers.0.self_attn.o_proj",
        "layers.0.mlp.up": "model.layers.0.mlp.up_proj",
        "layers.0.mlp.gate": "model.layers.0.mlp.gate_proj",
        "layers.0.mlp.down": "model.layers.0.mlp.down_proj",
        "layers.0.norm1": "model.layers.0.input_layernorm",
        "layers.0.norm2": "model.layers.0.post_attention_layernorm",
    }


def test_fused_projection_gives_slices() -> None:
    places = dict(resolve_places(on_meta("GPT2LMHeadModel"), "layers.1.attn.{q,v,qkv}"))
    path = "transformer.h.1.attn.c_attn"
    assert places == {
        "layers.1.attn.q": Slice(path, 0, 3),
        "layers.1.attn.v": Slice(path, 2, 3),
        "layers.1.attn.qkv": Slice(path),
    }


@pytest.mark.parametrize(
    ("pattern", "sites"),
    [
        ("final", ["final"]),
        ("layers.*", [f"layers.{i}" for i in range(12)]),
        ("layers.1", ["layers.1"]),
        ("layers.[9-11].mlp", ["layers.9.mlp", "layers.10.mlp", "layers.11.mlp"]),
        ("layers.[3-4].attn.{v,q}", [f"layers.{i}.attn.{n}" for n in "vq" for i in (3, 4)]),
        ("{embed,layers.0.{norm1, norm2}}", ["embed", "layers.0.norm1", "layers.0.norm2"]),
    ],
)
def test_patterns(pattern: str, sites: list[str]) -> None:
    with torch.device("meta"):
        host = tf.LlamaModel(tf.LlamaConfig(**{**LM, "num_hidden_layers": 12}))
    assert [site for site, _ in resolve(host, pattern)] == sites


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("layers.*.atn.q", "no site 'layers.*.atn.q' in LlamaModel (llama); nearest: layers.0.attn"),
        ("layers.*.attn.{q,w}", "no site 'layers.*.attn.w' of 'layers.*.attn.{q,w}'"),
        ("layers.[1-2]", "no site 'layers.2' of 'layers.[1-2]'"),
        ("layers.[2-1]", "empty; put the lower end first"),
        ("layers.[1;2]", "malformed range"),
        ("layers.*.attn.{q", "malformed"),
        ("", "malformed"),
    ],
)
def test_a_pattern_that_names_nothing_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(AssemblerError, match=re.escape(said)):
        resolve(on_meta("LlamaModel"), pattern)


def test_a_wrapped_host_is_found_with_its_prefix() -> None:
    wrapped = nn.Sequential(nn.Linear(2, 2), nn.ModuleDict({"lm": on_meta("LlamaForCausalLM")}))
    anatomy, prefix = anatomy_of(wrapped)
    assert prefix == "1.lm"
    assert anatomy.fits(wrapped[1]["lm"])
    assert sites_of(wrapped)["layers.1.attn.q"] == "1.lm.model.layers.1.self_attn.q_proj"


def test_two_hosts_side_by_side_are_ambiguous() -> None:
    pair = nn.ModuleDict({"eye": on_meta("ViTModel"), "talk": on_meta("LlamaModel")})
    with pytest.raises(AssemblerError, match=r"several hosts: eye \(vit\), talk \(llama\)"):
        anatomy_of(pair)


def test_an_unknown_module_is_refused() -> None:
    with pytest.raises(
        AssemblerError, match="no anatomy fits Linear; describe it with `anatomy:` on its node, or register_anatomy"
    ):
        anatomy_of(nn.Linear(2, 2))


def test_a_subclass_has_its_base_class_anatomy() -> None:
    class Mine(tf.LlamaModel):
        pass

    with torch.device("meta"):
        assert anatomy_of(Mine(tf.LlamaConfig(**LM)))[0].name == "llama"


def test_a_taken_name_and_a_double_index_are_refused() -> None:
    with pytest.raises(AssemblerError, match="'llama' is already registered"):
        register_anatomy(Anatomy("llama", ("Other",), {"embed": "wte"}))
    with pytest.raises(AssemblerError, match="more than one"):
        register_anatomy(Anatomy("deep", ("Deep",), {"blocks.{i}.{i}": "a.{i}.{i}"}))
