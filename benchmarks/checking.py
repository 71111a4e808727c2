"""How long a check takes: a cold `assembler validate` of 10 nodes, and a 200-node graph in process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from assembler.check import check
from assembler.spec import parse


def chained(nodes: int) -> str:
    """A spec of `nodes` nodes: pictures, each through an encoder and projectors, into one LM."""
    lines, edges, slots, count = [], [], [], 0
    while count < nodes - 1:
        row = [f"photo{count}: {{type: input.image, size: [64, 64]}}"]
        row.append(f"eyes{count}: {{type: encoder.timm, model: mobilenetv2_100}}")
        row += [f"bridge{count}_{i}: {{type: projector.mlp}}" for i in range(2)]
        row = row[: nodes - 1 - count]
        names = [item.split(":")[0] for item in row]
        edges += [f"{a} -> {b}" for a, b in pairwise(names)]
        if len(names) == 4:
            edges.append(f"{names[-1]} -> talk.slot{count}")
            slots.append(f"{{slot{count}}}")
        lines += row
        count += len(row)
    config = "{vocab_size: 300, hidden_size: 64}"
    prompt = " ".join([*slots, "{answer}"])
    lines.append(f'talk: {{type: backbone.causal_lm, arch: llama, config: {config}, prompt: "{prompt}"}}')
    body = "".join(f"  {line}\n" for line in lines)
    return f"assembler: 1\nnodes:\n{body}edges:\n" + "".join(f"  - {edge}\n" for edge in edges)


def cold(command: list[str], times: int) -> float:
    """Median wall seconds of a fresh process."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(command, check=False, capture_output=True)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, target)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ten.yaml"
        path.write_text(chained(10))
        bare = cold([sys.executable, "-c", "pass"], 7)
        validate = cold([sys.executable, "-m", "assembler.cli", "validate", str(path)], 7)
    spec, found = parse(chained(200)), []
    for _ in range(20):
        start = time.perf_counter()
        graph = check(spec)
        found.append(time.perf_counter() - start)
    assert len(graph.parts) == 200
    return [
        ("validate, 10 nodes, cold", f"{validate:.2f} s (python alone {bare:.2f} s)", "< 1.5 s"),
        ("check, 200 nodes, in process", f"{statistics.median(found) * 1000:.1f} ms", "< 50 ms"),
    ]
