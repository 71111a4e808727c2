"""Bottlenecks and fusion beside the `adapters` library, which needs another transformers, on a Python path of its own.

    pip install --target ENV --no-deps adapters "transformers==4.57.6" "huggingface_hub<1.0" "tokenizers<=0.23"
    python -m benchmarks.adapters_library ENV

The library's weights are copied into ours; outputs, and the time and peak memory of a forward and
backward, are then compared. The library is timed before and after ours, and the mean of the two counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from assembler.adapters.book import Book, adapters_of
from benchmarks._peak import peak_bytes
from components.adapters.fusion import Fusion
from components.adapters.houlsby import Houlsby
from components.adapters.pfeiffer import Pfeiffer

SCRIPT = Path(__file__).with_name("_adapters_library.py")
STEPS = 40
PLACES = {"attn_out": "attention.output", "mlp_out": "output"}


def reference(env: Path) -> dict[str, Any]:
    """What the library computes, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.pt"
        knobs = {**os.environ, "PYTHONPATH": str(env)}
        subprocess.run([sys.executable, "-P", str(SCRIPT), str(path)], env=knobs, check=True, stderr=subprocess.DEVNULL)
        return torch.load(path, weights_only=True)


def theirs(key: str, fusion: str) -> str:
    """The library's name of one of our parameters: `one.layers_0_mlp_out.down.weight`."""
    name, place, inner = key.split(".", 2)
    _, index, *point = place.split("_")
    root = f"encoder.layer.{index}.{PLACES['_'.join(point)]}"
    if name == "mix":
        return f"{root}.adapter_fusion_layer.{fusion}.{inner}"
    words = {"down": "adapter_down.0", "up": "adapter_up"}
    layer, _, kind = inner.partition(".")
    return f"{root}.adapters.{name}.{words[layer]}.{kind}"


def ours(name: str, found: dict[str, Any], config: dict[str, Any]) -> tuple[nn.Module, Book]:
    """Our host and adapters with the library's weights."""
    host = BertModel(BertConfig(**config), add_pooling_layer=False)
    host.load_state_dict(found["host"])
    host.requires_grad_(False)
    part = Houlsby(host="h", size=16, activation="silu", norms=False) if name == "houlsby" else Pfeiffer(host="h")
    names = ["one", "two"] if name == "fusion" else ["one"]
    for one in names:
        part.attach(host, one, 0)
    book = adapters_of(host)
    assert book is not None
    if name == "fusion":
        composition = "fuse(one, two, by=mix)"
        Fusion(host="h").attach(host, "mix", 0, composition=composition)
        book.activate(composition)
        for one in names:
            book.modules[one].requires_grad_(False)
    with torch.no_grad():
        for key, parameter in book.modules.named_parameters():
            parameter.copy_(found["adapters"][theirs(key, "one,two")])
    return host.eval(), book


def seconds(host: nn.Module, ids: Tensor) -> float:
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        host(ids).last_hidden_state.pow(2).mean().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rows(env: Path) -> list[tuple[str, str, str]]:
    """(what, figure, target)."""
    found, table = reference(env), []
    names = ("pfeiffer", "houlsby", "fusion")
    hosts = {name: ours(name, found[name], found["config"])[0] for name in names}
    took = {name: seconds(host, found["ids"]) for name, host in hosts.items()}
    again = reference(env)
    for name, host in hosts.items():
        with torch.no_grad():
            far = (host(found["ids"]).last_hidden_state - found[name]["output"]).abs().max()
        ratio = 2 * took[name] / (found[name]["seconds"] + again[name]["seconds"])
        table.append((f"{name}: largest difference to the adapters library", f"{far:.1e}", "<= 1e-5"))
        table.append((f"{name}: step time, ours / the library's", f"{ratio:.3f}", "<= 1.00"))
        own = peak_bytes(lambda: lambda: host(found["ids"]).last_hidden_state.pow(2).mean().backward())  # noqa: B023
        table.append((f"{name}: peak memory, ours / the library's", f"{own / found[name]['peak']:.3f}", "<= 1.00"))
    return table


if __name__ == "__main__":
    for row in rows(Path(sys.argv[1])):
        print(*row, sep="   ")
