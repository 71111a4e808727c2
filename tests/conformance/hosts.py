"""Tiny hosts of every family, a batch for each, and the tensor that shows what a host computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

SIZE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**SIZE, "vocab_size": 40, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CONVS = {"conv_dim": [8, 8], "conv_stride": [2, 2], "conv_kernel": [3, 3], "num_feat_extract_layers": 2}
SPEECH = {**SIZE, **CONVS, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "vocab_size": 32}
DRY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DRY_SPEECH = {f"{n}_dropout": 0.0 for n in ("hidden", "attention", "activation", "feat_proj")} | {"layerdrop": 0.0}
DRY_SPEECH |= {"mask_time_prob": 0.0}


@dataclass(frozen=True)
class HostCase:
    """How to build a host, its batch, its mask's name where it has one, and what of its output is looked at."""

    build: Callable[[], nn.Module]
    batch: dict[str, Tensor]
    out: Callable[[Any], Tensor]
    masks: bool = False

    def run(self, host: nn.Module) -> Tensor:
        return self.out(host(**self.batch))


def text_batch(**more: Tensor) -> dict[str, Tensor]:
    ids = torch.tensor([[5, 9, 3, 17, 21], [0, 0, 8, 30, 4]])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), **more}


def gpt2() -> nn.Module:
    dry = {f"{name}_pdrop": 0.0 for name in ("resid", "embd", "attn")}
    config = tf.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40, bos_token_id=1, eos_token_id=2, **dry)
    return tf.GPT2LMHeadModel(config)


def t5() -> nn.Module:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
    return tf.T5ForConditionalGeneration(tf.T5Config(**sizes, dropout_rate=0.0))


def whisper() -> nn.Module:
    sizes = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = tf.WhisperConfig(
        d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=4, max_source_positions=6, vocab_size=40,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, dropout=0.0, **sizes,
    )  # fmt: skip
    return tf.WhisperModel(config).encoder


def pixels(*shape: int) -> Tensor:
    count = torch.Size(shape).numel()
    return torch.sin(torch.arange(count, dtype=torch.float32) * 0.37).reshape(shape)


def logits(output: Any) -> Tensor:
    return output.logits


def last(output: Any) -> Tensor:
    return output.last_hidden_state


HOSTS: dict[str, HostCase] = {
    "llama": HostCase(
        lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT, num_key_value_heads=1)), text_batch(), logits, True
    ),
    "gpt2": HostCase(gpt2, text_batch(position_ids=torch.tensor([[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]])), logits, True),
    "bert": HostCase(lambda: tf.BertModel(tf.BertConfig(**TEXT, **DRY)), text_batch(), last, True),
    "t5": HostCase(t5, text_batch(decoder_input_ids=torch.tensor([[0, 7, 3], [0, 4, 9]])), logits, True),
    "vit": HostCase(
        lambda: tf.ViTModel(tf.ViTConfig(**SIZE, image_size=8, patch_size=4)),
        {"pixel_values": pixels(2, 3, 8, 8)},
        last,
    ),
    "timm": HostCase(
        lambda: VisionTransformer(img_size=8, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=3),
        {"x": pixels(2, 3, 8, 8)},
        lambda output: output,
    ),
    "whisper": HostCase(whisper, {"input_features": pixels(2, 4, 12)}, last),
    "wav2vec2": HostCase(
        lambda: tf.Wav2Vec2Model(tf.Wav2Vec2Config(**SPEECH, **DRY_SPEECH)), {"input_values": pixels(2, 64)}, last
    ),
    "ast": HostCase(
        lambda: tf.ASTModel(tf.ASTConfig(**SIZE, **DRY, max_length=24, num_mel_bins=16)),
        {"input_values": pixels(2, 24, 16)},
        last,
    ),
}
"""Every family under the laws of adapters."""


def open_clip_tower() -> nn.Module:
    from open_clip.transformer import VisionTransformer as Tower

    return Tower(8, 4, width=16, layers=2, heads=2, mlp_ratio=1.5, output_dim=6)


OTHERS: dict[str, HostCase] = {
    "open_clip": HostCase(open_clip_tower, {"x": pixels(2, 3, 8, 8)}, lambda output: output),
    "dinov2": HostCase(
        lambda: tf.Dinov2Model(tf.Dinov2Config(**SIZE, image_size=8, patch_size=4)),
        {"pixel_values": pixels(2, 3, 8, 8)},
        last,
    ),
    "roberta": HostCase(lambda: tf.RobertaModel(tf.RobertaConfig(**TEXT, **DRY)), text_batch(), last, True),
    "wavlm": HostCase(
        lambda: tf.WavLMModel(tf.WavLMConfig(**SPEECH, **DRY_SPEECH)), {"input_values": pixels(2, 64)}, last
    ),
    "stable wav2vec2": HostCase(
        lambda: tf.Wav2Vec2Model(tf.Wav2Vec2Config(**SPEECH, **DRY_SPEECH, do_stable_layer_norm=True)),
        {"input_values": pixels(2, 64)},
        last,
    ),
    "gemma2": HostCase(
        lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**TEXT, num_key_value_heads=1, head_dim=8)), text_batch(), logits
    ),
    "eager llama": HostCase(
        lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT, num_key_value_heads=1, attn_implementation="eager")),
        text_batch(),
        logits,
    ),
}
"""More hosts, tried with one method of each kind."""


def host_of(family: str) -> nn.Module:
    """A host of a family, its weights drawn under one seed, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {**HOSTS, **OTHERS}[family].build().eval()
