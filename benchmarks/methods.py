"""Ten ways to adapt one frozen vision model, on real data: scanned digits first, then clothes, then the digits again.

python -m benchmarks.methods [--method NAME ...] [--part scores|memory|time ...] [--steps 30] [--rows 150] [--out DIR]

MobileNetV2 (ImageNet) -> MLP -> SmolLM2-135M-Instruct; the MLP is aligned once on five of the ten digits and five of
the ten kinds of clothes, and then frozen with the rest. Every method then learns, from that same model, the same
batches of all digits and after them the same batches of all clothes of Fashion-MNIST, in bf16. `forgotten` is how much
of the score on digits the clothes cost. A step is forward, backward and update of one batch of clothes behind the
bridge, whose tokens are computed once, as in a run; memory is the peak of what the step holds beside the model.
What is measured is kept in DIR, one file a method, and is not measured again: scores need patience, time a computer
that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from assembler.batches import Batches, split
from assembler.check import check
from assembler.compile import Assembly, compile_graph, inference
from assembler.evaluate import TorchAnswers, evaluate
from assembler.fetching import fetch_weights
from assembler.graph import Graph
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
  talk:
    {{type: backbone.causal_lm, weights: "{talk}", chat: false, prompt: "This {{photo}} is called {{answer}}",
      max_new_tokens: 5}}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
adapters: {adapters}
data: {data}
"""
TASKS = {
    "digits": "{type: dataset.digits, columns: {photo: image, answer: word}}",
    "clothes": "{type: dataset.fashion_mnist, options: {limit: 3000}, columns: {photo: image, answer: word}}",
}
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "LoRA, r = 8 on q, v": ({"type": "adapter.lora", "rank": 8}, 5e-3),
    "DoRA, r = 8 on q, v": ({"type": "adapter.lora", "rank": 8, "dora": True}, 5e-3),
    "(IA)3": ({"type": "adapter.ia3"}, 2e-2),
    "Houlsby": ({"type": "adapter.houlsby"}, 3e-3),
    "Pfeiffer": ({"type": "adapter.pfeiffer"}, 3e-3),
    "parallel": ({"type": "adapter.parallel"}, 3e-3),
    "Compacter, reduction 16": ({"type": "adapter.compacter", "reduction": 16}, 1e-2),
    "AdapterBias": ({"type": "adapter.adapter_bias"}, 1e-2),
    "prefix of 10": ({"type": "adapter.prefix", "length": 10}, 2e-2),
    "LLaMA-Adapter": ({"type": "adapter.llama_adapter"}, 3e-2),
}
"""The adapter, with its published defaults where nothing is said, and its learning rate; AdamW, no decay."""
BATCH, ALIGNED = 16, 80
"""Rows a step, and steps on each task in which the bridge is aligned."""
PARTS = ("scores", "memory", "time")
BF16 = torch.autocast("cpu", torch.bfloat16)
TITLES = ("method", "trainable", "digits", "clothes", "digits after", "forgotten", "step ms", "memory MiB")
TIMED = 15
"""Timed steps of a method, after two that are not."""


def graph_of(data: str, adapter: dict[str, Any] | None = None) -> Graph:
    """The checked graph, its weights and data here."""
    adapters = json.dumps({"tune": {"host": "talk", **adapter}} if adapter else {})
    text = SPEC.format(eyes=EYES, talk=TALK, adapters=adapters, data=data)
    fetch_weights(check(parse(text, Path("methods.yaml"))).require())
    graph = check(parse(text, Path("methods.yaml"))).require()
    assert graph.dataset is not None
    graph.dataset.fetch(graph.base)
    return graph


@cache
def batches(task: str, count: int, bridge: Path | None = None, classes: int = 10) -> list[dict[str, torch.Tensor]]:
    """The same `count` batches of the first classes whatever learns from them; with a bridge its tokens are in them."""
    graph = graph_of(TASKS[task])
    rows, collate, order = split(graph)[0], Batches(graph), torch.Generator().manual_seed(0)
    own = [i for i in range(len(rows)) if rows[i]["label"] < classes]
    chosen = torch.tensor(own)[torch.randint(len(own), (count, BATCH), generator=order)].tolist()
    found = [collate([rows[i] for i in some]) for some in chosen]
    if bridge is not None:
        assembly = compile_graph(graph)
        load_learned(assembly, bridge)
        with inference(assembly), BF16:
            for batch in found:
                batch |= assembly.values(batch, only=["bridge"])
    return found


def learn(assembly: Assembly, names: Sequence[str], given: Sequence[dict[str, torch.Tensor]], rate: float) -> None:
    """Let these learn from batches."""
    assembly.train_only(names)
    assembly.train()
    optimizer = torch.optim.AdamW([p for p in assembly.parameters() if p.requires_grad], rate, weight_decay=0)
    count = len(given)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 10) * (1 - i / (count + 1)))
    for batch in given:
        step(assembly, optimizer, batch)
        warm.step()


def step(assembly: Assembly, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> None:
    """One forward, backward and update."""
    with BF16:
        loss = assembly(**batch)["loss"]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def score(graph: Graph, assembly: Assembly, most: int) -> dict[str, Any]:
    """Exact match on held-out rows, with its interval."""
    learned, held_out = split(graph)
    rows, answers = held_out[:most], TorchAnswers(graph, assembly)
    with BF16:
        given = [text for at in range(0, len(rows), 50) for text in answers(list(rows[at : at + 50]))]
    report = evaluate(graph, given, learned, rows)
    return {"score": report[report["metric"]], "interval": report["intervals"][report["metric"]], "n": report["n"]}


def scores(name: str, bridge: Path, steps: int, most: int) -> dict[str, Any]:
    """What a method has learned of each task, and what it still knows of the first after the second."""
    adapter, rate = METHODS[name]
    first, second = (graph_of(data, adapter) for data in TASKS.values())
    assembly = compile_graph(first)
    load_learned(assembly, bridge)
    learn(assembly, ["tune"], batches("digits", steps, bridge), rate)
    before = score(first, assembly, most)
    learn(assembly, ["tune"], batches("clothes", steps, bridge), rate)
    return {"digits": before, "clothes": score(second, assembly, most), "after": score(first, assembly, most)}


def ready(name: str, bridge: Path) -> tuple[Assembly, dict[str, torch.Tensor]]:
    """A method's model, about to learn, and a batch for it."""
    assembly = compile_graph(graph_of(TASKS["clothes"], METHODS[name][0]))
    assembly.train_only(["tune"])
    return assembly.train(), batches("clothes", 1, bridge)[0]


def memory(name: str, bridge: Path) -> dict[str, Any]:
    """The trainable parameters, and the bytes at the peak of a step beside the model's weights."""
    assembly, batch = ready(name, bridge)
    mine = [p for p in assembly.parameters() if p.requires_grad]

    def made() -> Any:
        optimizer = torch.optim.AdamW(mine)
        return lambda: step(assembly, optimizer, batch)

    return {"trainable": sum(p.numel() for p in mine), "memory_bytes": peak_bytes(made)}


def seconds(name: str, bridge: Path) -> dict[str, Any]:
    """The median time of a step."""
    assembly, batch = ready(name, bridge)
    optimizer = torch.optim.AdamW([p for p in assembly.parameters() if p.requires_grad])
    found = []
    for _ in range(TIMED + 2):
        start = time.perf_counter()
        step(assembly, optimizer, batch)
        found.append(time.perf_counter() - start)
    return {"step_seconds": statistics.median(found[2:])}


def aligned(folder: Path) -> Path:
    """The bridge, aligned on half of the classes of both tasks by turns, in a file."""
    path = folder / "bridge.safetensors"
    if not path.exists():
        assembly = compile_graph(graph_of(TASKS["digits"]))
        pairs = zip(*(batches(task, ALIGNED, classes=5) for task in TASKS), strict=True)
        learn(assembly, ["bridge"], [batch for pair in pairs for batch in pair], 1e-3)
        save_learned(assembly, ["bridge"], path)
    return path


def measured(name: str, folder: Path, parts: Collection[str], steps: int, most: int) -> dict[str, Any]:
    """What is known of a method, with `parts` of it measured where they are not yet."""
    path = folder / f"{list(METHODS).index(name)}.json"
    found = json.loads(path.read_text()) if path.exists() else {"method": name}
    bridge = aligned(folder)
    if "scores" in parts and "digits" not in found:
        found |= scores(name, bridge, steps, most)
    if "memory" in parts and "memory_bytes" not in found:
        found |= memory(name, bridge)
    if "time" in parts and "step_seconds" not in found:
        found |= seconds(name, bridge)
    path.write_text(json.dumps(found))
    return found


def line(found: dict[str, Any]) -> list[str]:
    """A row of the table, with a dash for what is not measured yet."""

    def score_of(key: str) -> str:
        if key not in found:
            return "-"
        low, high = found[key]["interval"]
        return f"{found[key]['score']:.3f}\n{low:.3f} to {high:.3f}"

    def number(key: str, text: str, per: float = 1.0) -> str:
        return text.format(found[key] / per) if key in found else "-"

    lost = f"{found['digits']['score'] - found['after']['score']:.3f}" if "digits" in found else "-"
    columns = [found["method"], number("trainable", "{:,.0f}"), *map(score_of, ("digits", "clothes", "after")), lost]
    return [*columns, number("step_seconds", "{:.0f}", 1e-3), number("memory_bytes", "{:.0f}", 2**20)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen parts of the chosen methods, all by default, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--method", action="append", choices=list(METHODS), help="only this one; may be repeated")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    parser.add_argument("--steps", type=int, default=30, help="steps on each task")
    parser.add_argument("--rows", type=int, default=150, help="held-out rows that are scored, at most")
    parser.add_argument("--out", type=Path, help="a folder that keeps what is measured; by default nothing is kept")
    chosen = parser.parse_args(arguments)
    console = Console(stderr=True)
    table = Table(*TITLES, title="ten methods on one frozen model, 95 % bootstrap intervals", title_justify="left")
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in chosen.method or METHODS:
            found = measured(name, folder, chosen.part or PARTS, chosen.steps, chosen.rows)
            table.add_row(*line(found))
            console.print(*(text.replace("\n", ", ") for text in line(found)), sep="  ")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
