"""Step time of a compiled spec over that of the same model written by hand, paired in one run."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import timm
import torch
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from assembler.check import check
from assembler.compile import compile_graph
from assembler.forecast import fake_batch
from assembler.spec import parse

LLAMA = {"vocab_size": 8000, "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6}
LLAMA |= {"num_attention_heads": 6}
SPEC = f"""
assembler: 1
nodes:
  photo: {{type: input.image, size: [96, 96]}}
  eyes: {{type: encoder.timm, model: mobilenetv2_100}}
  bridge: {{type: projector.mlp}}
  talk: {{type: backbone.causal_lm, arch: llama, config: {LLAMA}, prompt: "{{photo}} {{answer}}"}}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
"""


class ByHand(nn.Module):
    """The same model without this project."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes = timm.create_model("mobilenetv2_100", num_classes=0)
        self.up, self.down = nn.Linear(1280, 384), nn.Linear(384, 384)
        self.lm = LlamaForCausalLM(LlamaConfig(**LLAMA))

    def forward(self, photo, talk_input_ids, talk_attention_mask, talk_labels):
        x = self.eyes.forward_features(photo).flatten(2).transpose(1, 2)
        x = self.down(F.gelu(self.up(x)))
        words = self.lm.model.embed_tokens(talk_input_ids.clamp(max=7999))
        rows = x.flatten(0, 1)[(talk_input_ids - 8000).clamp(min=0)]
        out = self.lm(
            inputs_embeds=torch.where((talk_input_ids < 8000)[..., None], words, rows),
            attention_mask=talk_attention_mask,
            position_ids=(talk_attention_mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=talk_labels.shape[1] + 1,
        )
        return {"loss": F.cross_entropy(out.logits[:, :-1].flatten(0, 1), talk_labels.flatten(), ignore_index=-100)}


def seconds(model: nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """One forward and backward."""
    start = time.perf_counter()
    model(**batch)["loss"].backward()
    return time.perf_counter() - start


def rows(pairs: int = 40) -> list[tuple[str, str, str]]:
    """(what, figure, target)."""
    graph = check(parse(SPEC, Path("spec.yaml"))).require()
    ours, hand = compile_graph(graph), ByHand()
    ours.train_only(["eyes", "bridge", "talk"])
    ours.train()
    hand.train()
    batch = fake_batch(graph, 8, 32)
    batch["photo"].normal_()
    for model in (ours, hand, ours, hand):
        seconds(model, batch)
    ratios = []
    for index in range(pairs):  # the order alternates, so that neither always comes first
        times = {}
        for model in (ours, hand) if index % 2 else (hand, ours):
            times[model is ours] = seconds(model, batch)
        ratios.append(times[True] / times[False])
    low, _, high = statistics.quantiles(ratios, n=4)
    middle = statistics.median(ratios)
    return [("step, compiled / by hand", f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})", "<= 1.02")]
