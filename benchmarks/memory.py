"""Forecast of a step's tensor memory against the peak that torch itself accounts for while the step runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from assembler.check import check
from assembler.compile import compile_graph
from assembler.forecast import fake_batch, forecast
from assembler.graph import Graph
from assembler.spec import parse
from benchmarks._peak import peak_bytes

LM = "{vocab_size: 2000, hidden_size: 256, intermediate_size: 768, num_hidden_layers: 6, num_attention_heads: 8}"
HEAD = "data: {type: dataset.digits, columns: {photo: image, answer: word}}\n"
SPECS = {
    "projector between a frozen encoder and a frozen LM": f"""
assembler: 1
nodes:
  photo: {{type: input.image, size: [96, 96]}}
  eyes: {{type: encoder.timm, model: resnet18, freeze: true}}
  bridge: {{type: projector.mlp}}
  talk: {{type: backbone.causal_lm, arch: llama, config: {LM}, prompt: "{{photo}} {{question}} {{answer}}"}}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
{HEAD}stages: [{{name: run, train: [bridge], batch: 8}}]
""",
    "everything learns": f"""
assembler: 1
nodes:
  photo: {{type: input.image, size: [96, 96]}}
  eyes: {{type: encoder.timm, model: resnet18}}
  bridge: {{type: projector.mlp}}
  talk: {{type: backbone.causal_lm, arch: llama, config: {LM}, prompt: "{{photo}} {{question}} {{answer}}"}}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
{HEAD}stages: [{{name: run, train: [eyes, bridge, talk], batch: 8}}]
""",
    "LoRA and a head on a ViT": """
assembler: 1
nodes:
  photo: {type: input.image, size: [224, 224]}
  eyes: {type: encoder.timm, model: vit_tiny_patch16_224}
  name: {type: head.classifier, classes: 10}
edges: [photo -> eyes, eyes -> name]
adapters: {tune: {type: adapter.lora, host: eyes, sites: "layers.*.mlp.{up,down}", rank: 8}}
data: {type: dataset.digits, columns: {photo: image}}
stages: [{name: run, train: [tune, name], batch: 8}]
""",
}


def graph_of(name: str) -> Graph:
    """The checked graph of one of the specs."""
    return check(parse(SPECS[name], Path("spec.yaml"))).require()


def forecast_peak(graph: Graph) -> int:
    """Bytes the forecast says."""
    return forecast(graph, compile_graph(graph, device="meta"), graph.document.stages[0])["memory_bytes"]


def measured_peak(graph: Graph) -> int:
    """Bytes of living tensors, the weights too, at the peak of the second step."""
    (stage,) = graph.document.stages

    def made() -> Callable[[], None]:
        assembly = compile_graph(graph)
        assembly.train_only(stage.train)
        assembly.train()
        optimizer = torch.optim.AdamW([p for p in assembly.parameters() if p.requires_grad])
        batch = fake_batch(graph, stage.batch, 32)

        def step() -> None:
            assembly(**batch)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    return peak_bytes(made)


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, target) of every spec."""
    found = []
    for name in SPECS:
        graph = graph_of(name)
        said, real = forecast_peak(graph), measured_peak(graph)
        figure = f"{said / 2**20:.1f} / {real / 2**20:.1f} MiB = {said / real:.3f}"
        found.append((f"memory forecast / measured: {name}", figure, "0.85 to 1.15"))
    return found
