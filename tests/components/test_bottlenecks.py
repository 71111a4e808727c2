"""The bottleneck family: counts of the papers on the meta device, and where each one stands."""

import pytest
import torch
import transformers as tf
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from components.adapters.adaptformer import AdaptFormer
from components.adapters.compacter import Compacter
from components.adapters.houlsby import Houlsby
from components.adapters.ia3 import Ia3
from components.adapters.llama_adapter import LlamaAdapter
from components.adapters.lora import Lora
from components.adapters.parallel import Parallel
from components.adapters.pfeiffer import Pfeiffer
from components.adapters.prefix import Prefix
from tests.conformance.hosts import HOSTS, host_of

ROBERTA = {"vocab_size": 50265, "type_vocab_size": 1, "max_position_embeddings": 514}
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
VIT_B = {"embed_dim": 768, "depth": 12, "num_heads": 12, "img_size": 224, "patch_size": 16, "num_classes": 0}
BUILD = {
    "bert-base": lambda: tf.BertModel(tf.BertConfig(), add_pooling_layer=False),
    "roberta-base": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**ROBERTA)),
    "llama-7b": lambda: tf.LlamaModel(tf.LlamaConfig(**LLAMA_7B, vocab_size=32000)),
    "vit-b": lambda: VisionTransformer(**VIT_B),
    "whisper-small": lambda: tf.WhisperModel(
        tf.WhisperConfig(d_model=768, encoder_layers=12, decoder_layers=12, encoder_attention_heads=12,
                         decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072)
    ),
}  # fmt: skip


def seq(reduction: int) -> Pfeiffer:
    return Pfeiffer(host="h", reduction=reduction)


@pytest.mark.parametrize(
    ("architecture", "part", "figure"),
    [
        # The table of the adapters library on roberta-base: each method's smallest and largest setting.
        ("roberta-base", Houlsby(host="h", size=12, norms=False), 461_088),
        ("roberta-base", Houlsby(host="h", size=384, norms=False), 14_183_424),
        ("roberta-base", seq(64), 230_544),
        ("roberta-base", seq(2), 7_091_712),
        ("roberta-base", Parallel(host="h", size=12), 230_544),
        ("roberta-base", Parallel(host="h", size=384), 7_091_712),
        ("roberta-base", Compacter(host="h", reduction=16, n=4), 58_816),
        ("roberta-base", Compacter(host="h", reduction=4, n=4), 69_184),
        ("roberta-base", Prefix(host="h", length=5, bottleneck=32), 636_704),
        ("roberta-base", Prefix(host="h", length=200, bottleneck=512), 10_002_944),
        ("roberta-base", Lora(host="h", rank=4), 147_456),
        ("roberta-base", Lora(host="h", rank=200), 7_372_800),
        ("roberta-base", Ia3(host="h"), 55_296),
        ("vit-b", Pfeiffer(host="h", reduction=96, scale="channel"), 165_984),
        ("whisper-small", Lora(host="h", rank=8, sites="{layers.*.attn.{q,v},decoder.layers.*.cross.{q,v}}"), 884_736),
        ("bert-base", Houlsby(host="h", size=64, norms=False), 2_379_264),
        ("bert-base", Houlsby(host="h", size=64), 2_379_264 + 38_400),
        ("llama-7b", LlamaAdapter(host="h"), 1_229_760),
        ("llama-7b", LlamaAdapter(host="h", gates="layer"), 1_228_830),
    ],
)
def test_counts_are_those_of_the_papers(architecture, part, figure):
    with torch.device("meta"):
        host = BUILD[architecture]()
    new = part.attach(host, "tune", seed=0)
    sizes = {key: parameter.numel() for key, parameter in host.named_parameters()}
    assert sum(sizes[key] for key in new) == figure


def test_a_fresh_houlsby_adapter_is_near_the_identity_and_not_it():
    from components.adapters._bottleneck import Bottleneck

    torch.manual_seed(0)
    module, x = Bottleneck(1024, 64, "gelu", "houlsby"), torch.randn(8, 1024)
    with torch.no_grad():
        assert 0 < module(x).abs().max() < 2e-3


@torch.no_grad()
def stirred(host, new) -> None:
    for key, parameter in host.named_parameters():
        if key in new:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(key))))


@torch.no_grad()
def test_pfeiffer_in_bert_reads_after_the_norm_and_adds_before_it():
    host = host_of("bert")
    stirred(host, Pfeiffer(host="h", reduction=4, layers=[-1]).attach(host, "tune", 0))
    layer, adapter = host.encoder.layer[-1], host.adapters.tune.layers_1_mlp_out
    x = torch.randn(2, 5, 16)
    found, stream = layer(x), layer.attention(x)[0]
    added = layer.output.dense(layer.intermediate(stream))
    inner = F.relu(adapter.down(layer.output.LayerNorm(added + stream)))
    expected = layer.output.LayerNorm(added + adapter.up(inner) + stream)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_adaptformer_reads_the_stream_before_the_norm_of_the_mlp():
    host = host_of("timm")
    stirred(host, AdaptFormer(host="h", size=4, layers=[0]).attach(host, "tune", 0))
    block, adapter = host.blocks[0], host.adapters.tune.layers_0_mlp_out
    x = torch.randn(2, 5, 16)
    middle = x + block.attn(block.norm1(x))
    bare = block.mlp(block.norm2(middle))
    expected = middle + bare + 0.1 * adapter.up(F.relu(adapter.down(middle)))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("sites", ["layers.*.attn.{q,v}", "layers.*.attn.qkv", "embed", "layers.*.mlp.{up,down}"])
@pytest.mark.parametrize("family", ["gpt2", "timm"])
@pytest.mark.parametrize("dora", [False, True])
def test_lora_merges_into_slices_convolutions_and_embeddings(family, sites, dora):
    if dora and sites == "embed":
        pytest.skip("DoRA takes linears")
    if family == "gpt2" and sites == "embed":
        pytest.skip("GPT-2's embedding is tied to its head")
    host = host_of(family)
    stirred(host, Lora(host="h", rank=2, sites=sites, dora=dora).attach(host, "tune", 0))
    with torch.no_grad():
        before = HOSTS[family].run(host)
        host.adapters._book.merge("tune")
        torch.testing.assert_close(HOSTS[family].run(host), before, rtol=1e-5, atol=1e-5)
