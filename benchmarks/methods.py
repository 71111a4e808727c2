"""Ten ways to adapt one frozen vision model, on real data: scanned digits first, then clothes, then the digits again.

python -m benchmarks.methods [--method NAME ...] [--steps 80] [--rows 300] [--json]

MobileNetV2 (ImageNet) -> MLP -> SmolLM2-135M-Instruct; the MLP is aligned once on the captions of Tux Paint's stamps
and then frozen with the rest. Every method then learns, from that same model, the same batches of digits and after
them the same batches of Fashion-MNIST. `forgotten` is how much of the score on digits the clothes cost. A step is
forward, backward and update; memory is the peak of what a step holds beside the frozen model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from assembler.batches import Batches, split
from assembler.check import check
from assembler.compile import Assembly, compile_graph
from assembler.evaluate import TorchAnswers, evaluate
from assembler.fetching import fetch_weights
from assembler.graph import Graph
from assembler.rows import Rows
from assembler.runs import load_learned, save_learned
from assembler.spec import parse
from benchmarks._peak import peak_bytes
from benchmarks._weights import EYES, TALK

SPEC = """
assembler: 1
nodes:
  photo: {{type: input.image, size: [64, 64]}}
  eyes: {{type: encoder.timm, model: mobilenetv2_100, weights: "{eyes}"}}
  bridge: {{type: projector.mlp, norm: true}}
  talk: {{type: backbone.causal_lm, weights: "{talk}", chat: false, prompt: "{{photo}}{{answer}}", max_new_tokens: 5}}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
adapters: {adapters}
data: {data}
"""
ALIGN = "{type: dataset.tuxpaint, columns: {photo: image, answer: caption}, held_out: 0}"
TASKS = {
    "digits": "{type: dataset.digits, columns: {photo: image, answer: word}}",
    "clothes": "{type: dataset.fashion_mnist, options: {limit: 3000}, columns: {photo: image, answer: word}}",
}
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "LoRA, r = 8 on q, v": ({"type": "adapter.lora", "rank": 8}, 1e-3),
    "DoRA, r = 8 on q, v": ({"type": "adapter.lora", "rank": 8, "dora": True}, 1e-3),
    "(IA)3": ({"type": "adapter.ia3"}, 1e-2),
    "Houlsby": ({"type": "adapter.houlsby"}, 1e-3),
    "Pfeiffer": ({"type": "adapter.pfeiffer"}, 1e-3),
    "parallel": ({"type": "adapter.parallel"}, 1e-3),
    "Compacter": ({"type": "adapter.compacter"}, 3e-3),
    "AdapterBias": ({"type": "adapter.adapter_bias"}, 3e-3),
    "prefix of 10": ({"type": "adapter.prefix", "length": 10}, 1e-2),
    "LLaMA-Adapter": ({"type": "adapter.llama_adapter"}, 1e-2),
}
"""The adapter, with its published defaults where nothing is said, and its learning rate; AdamW, no decay."""
BATCH = 16
TITLES = ("method", "trainable", "digits", "clothes", "digits after", "forgotten", "step ms", "memory MiB")


def graph_of(data: str, adapter: dict[str, Any] | None = None) -> Graph:
    """The checked graph, its weights and data here."""
    adapters = json.dumps({"tune": {"host": "talk", **adapter}} if adapter else {})
    text = SPEC.format(eyes=EYES, talk=TALK, adapters=adapters, data=data)
    fetch_weights(check(parse(text, Path("methods.yaml"))).require())
    graph = check(parse(text, Path("methods.yaml"))).require()
    assert graph.dataset is not None
    graph.dataset.fetch(graph.base)
    return graph


def batches(graph: Graph, rows: Rows, count: int) -> Iterator[dict[str, torch.Tensor]]:
    """The same `count` batches whatever learns from them."""
    collate, order = Batches(graph), torch.Generator().manual_seed(0)
    for _ in range(count):
        yield collate([rows[int(i)] for i in torch.randint(len(rows), (BATCH,), generator=order)])


def learn(graph: Graph, assembly: Assembly, names: Sequence[str], count: int, rate: float) -> list[float]:
    """Seconds of each step."""
    assembly.train_only(names)
    assembly.train()
    optimizer = torch.optim.AdamW([p for p in assembly.parameters() if p.requires_grad], rate, weight_decay=0)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 10) * (1 - i / (count + 1)))
    found = []
    for batch in batches(graph, split(graph)[0], count):
        start = time.perf_counter()
        step(assembly, optimizer, batch)
        found.append(time.perf_counter() - start)
        warm.step()
    return found


def step(assembly: Assembly, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> None:
    """One forward, backward and update."""
    assembly(**batch)["loss"].backward()
    optimizer.step()
    optimizer.zero_grad()


def score(graph: Graph, assembly: Assembly, most: int) -> dict[str, Any]:
    """Exact match on held-out rows, with its interval."""
    learned, held_out = split(graph)
    rows, answers = held_out[:most], TorchAnswers(graph, assembly)
    given = [text for at in range(0, len(rows), 50) for text in answers(list(rows[at : at + 50]))]
    report = evaluate(graph, given, learned, rows)
    return {"score": report[report["metric"]], "interval": report["intervals"][report["metric"]], "n": report["n"]}


def measured(name: str, bridge: Path, steps: int, most: int) -> dict[str, Any]:
    """Everything about one method."""
    adapter, rate = METHODS[name]
    first, second = (graph_of(data, adapter) for data in TASKS.values())
    assembly = compile_graph(first)
    load_learned(assembly, bridge)
    took = learn(first, assembly, ["tune"], steps, rate)
    before = score(first, assembly, most)
    took += learn(second, assembly, ["tune"], steps, rate)
    found = {"method": name, "trainable": sum(p.numel() for p in assembly.parameters() if p.requires_grad)}
    found |= {"digits": before, "clothes": score(second, assembly, most), "after": score(first, assembly, most)}
    (batch,) = batches(second, split(second)[0], 1)

    def made() -> Any:
        optimizer = torch.optim.AdamW([p for p in assembly.train().parameters() if p.requires_grad])
        return lambda: step(assembly, optimizer, batch)

    return {**found, "step_seconds": statistics.median(took), "memory_bytes": peak_bytes(made)}


def aligned(folder: Path, steps: int) -> Path:
    """The bridge, aligned on captions, in a file; and none of the tasks' pictures seen."""
    graph = graph_of(ALIGN)
    assembly = compile_graph(graph)
    learn(graph, assembly, ["bridge"], steps, 1e-3)
    save_learned(assembly, ["bridge"], folder / "bridge.safetensors")
    return folder / "bridge.safetensors"


def line(found: dict[str, Any]) -> list[str]:
    """A row of the table."""

    def figure(one: dict[str, Any]) -> str:
        low, high = one["interval"]
        return f"{one['score']:.3f}\n{low:.3f} to {high:.3f}"

    lost = found["digits"]["score"] - found["after"]["score"]
    scores = [figure(found[key]) for key in ("digits", "clothes", "after")]
    took, held = found["step_seconds"] * 1e3, found["memory_bytes"] / 2**20
    return [found["method"], f"{found['trainable']:,}", *scores, f"{lost:.3f}", f"{took:.0f}", f"{held:.0f}"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen methods, all by default, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--method", action="append", choices=list(METHODS), help="only this one; may be repeated")
    parser.add_argument("--steps", type=int, default=80, help="steps on each task")
    parser.add_argument("--rows", type=int, default=300, help="held-out rows that are scored, at most")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    chosen = parser.parse_args(arguments)
    console, found = Console(stderr=True), []
    table = Table(*TITLES, title="ten methods on one frozen model, 95 % bootstrap intervals", title_justify="left")
    with tempfile.TemporaryDirectory() as folder:
        console.print("aligning the bridge on captions")
        bridge = aligned(Path(folder), 2 * chosen.steps)
        for name in chosen.method or METHODS:
            found.append(measured(name, bridge, chosen.steps, chosen.rows))
            table.add_row(*line(found[-1]))
            console.print(*(text.replace("\n", ", ") for text in line(found[-1])), sep="  ")
    if chosen.json:
        print(json.dumps(found, indent=2))
    else:
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
