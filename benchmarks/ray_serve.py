"""A bundle on Ray Serve on this machine's loopback: two replicas answer as the bundle does, and how fast.

    pip install --target ENV "ray[serve]"
    PYTHONPATH=ENV python -m benchmarks.ray_serve [BUNDLE]

Without BUNDLE a small one with random weights is made.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from assembler.bundle.runtime import Bundle

SPEC = """
assembler: 1
name: small
nodes:
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{question} {answer}"
    max_new_tokens: 16
"""
ASKED = 64


def small(folder: Path) -> Path:
    """A bundle of a text model with random weights."""
    from assembler.check import check
    from assembler.compile import compile_graph
    from assembler.export import export
    from assembler.spec import parse

    graph = check(parse(SPEC, Path("small.yaml"))).require()
    export(graph, compile_graph(graph), folder / "bundle", "fp32", [{"question": "who?", "answer": "me"}])
    return folder / "bundle"


def main(folder: Path) -> int:
    """Serve, ask, compare; 1 where an answer is not the bundle's."""
    import ray
    from ray import serve

    from assembler.deploy.ray_serve import app

    questions = ["what is this? " * (1 + i % 5) for i in range(ASKED)]
    wanted = Bundle(folder).generate([{"question": text} for text in questions], 16)
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": 8017})
    serve.run(app({"bundle": str(folder), "replicas": "2"}), route_prefix="/")

    def ask(text: str) -> tuple[str, float]:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 16}
        start = time.perf_counter()
        answer = httpx.post("http://127.0.0.1:8017/v1/chat/completions", json=body, timeout=60)
        return answer.json()["choices"][0]["message"]["content"], time.perf_counter() - start

    try:
        start = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(ask, questions))
        took = time.perf_counter() - start
    finally:
        serve.shutdown()
        ray.shutdown()
    same = np.mean([given == text for (given, _), text in zip(found, wanted, strict=True)])
    print(
        f"{ASKED} answers by 2 replicas in {took:.1f} s, the middle one {statistics.median(t for _, t in found):.2f} s"
    )
    print(f"equal to the bundle's own: {same:.0%}")
    return 0 if same == 1 else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as made:
        sys.exit(main(small(Path(made))))
