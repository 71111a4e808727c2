"""An assembly of MobileNetV2 and SmolLM2-135M as ONNX: its speed against its peers and memory, all in one run.

    python -m benchmarks.serving [--llama-cpp PYTHON] [--genai PYTHON] [--rounds 5] [--json]

Two threads; every ratio is the median over rounds in which both sides ran one after the other: a prompt of 256 tokens
three times, then 64 tokens more. PYTHON is the interpreter of an environment of its own: one with `llama-cpp-python`,
one with `onnxruntime-genai onnx onnx_ir torch transformers`. The KL divergence from the dequantised model stands beside
every speed, over the tokens of a fixed text that each contender is fed one by one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from assembler.bundle.precisions import Precisions
from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.compile import Assembly, compile_graph
from assembler.export import export
from assembler.fetching import fetch_weights
from assembler.spec import parse
from assembler.weights import fetch, parse_source
from benchmarks._contenders import Bundled, Contender, Eager, Peer, bandwidth, kl, others, speed, traffic
from benchmarks._peer import THREADS
from benchmarks._weights import SPEC, TALK

TEXT = """\
The harbour had been built for ships that no longer came. In the mornings an old man walked the length of the quay,
counted the iron rings to which nothing was tied, and wrote the number down, although it never changed. Children asked
him why he did it. He said that somebody had to know how many there were, in case the ships came back all at once and
wanted a place. One winter the sea froze as far as the lighthouse, and a fox crossed the ice to the island where nobody
had lived since the war. In spring there were four foxes. The teacher made her pupils draw a map of the island from what
the fishermen told them, and each map was different: on one the well lay north of the chapel, on another there was no
chapel at all. She hung them side by side. "A map," she said, "is what you get when people who have seen a thing try to
agree." Water boils at a lower temperature on a mountain because the air presses less on it; an egg needs longer there.
To sort a list, one can take the first item, put what is smaller before it and what is larger behind it, and do the
same with both halves until nothing is left to do.
"""
PROMPT, STEPS, LONG, BATCH = 256, 64, 4096, 16
PRECISIONS = {
    "fp32": Precisions("fp32"),
    "int8_dynamic": Precisions("int8_dynamic"),
    "int4": Precisions("int4"),
    "int4, cache int8": Precisions("int4", cache="int8"),
}
ORDER = ("fp32 x 16", "fp32", "eager fp32", "llama_cpp", "int4", "genai", f"int4, {LONG}", f"int4, cache int8, {LONG}",
         "int4, cache int8", "int8_dynamic", "eager bf16")  # fmt: skip
"""A round: those that are compared come one after the other, since a computer's speed moves within a minute."""
INSTALL = {
    "llama_cpp": "not installed: python -m venv E && E/bin/pip install llama-cpp-python, then --llama-cpp E/bin/python",
    "genai": "not installed: python -m venv E && E/bin/pip install onnxruntime-genai onnx onnx_ir torch transformers, "
    "then --genai E/bin/python",
}


def photo() -> Image.Image:
    """What the assembly is shown."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def compiled() -> tuple[Any, Assembly]:
    """The checked graph, and its model with the real weights and a projector from one seed."""
    graph = check(parse(SPEC, Path("serving.yaml")))
    fetch_weights(graph.require())
    graph = check(parse(SPEC, Path("serving.yaml"))).require()
    return graph, compile_graph(graph).eval()


def exported(
    folder: Path, precisions: Mapping[str, Precisions]
) -> tuple[dict[str, Bundle], dict[str, dict[str, Any]], Assembly]:
    """The bundle of each precision, the report of each with the `seconds` of its export, and the model."""
    bundles, reports = {}, {}
    rows = [{"photo": photo(), "question": "What is this?", "answer": TEXT[:200]}]
    graph, assembly = compiled()
    for name, precision in precisions.items():
        start = time.perf_counter()
        report = export(graph, assembly, folder / name, precision, rows)
        reports[name] = {**report, "seconds": time.perf_counter() - start}
        bundles[name] = Bundle(folder / name)
    return bundles, reports, assembly


def dequantised(assembly: Assembly, folder: Path, bundle: Bundle) -> Path:
    """The LM as a folder that transformers reads, for a builder that starts from one."""
    lm: Any = assembly.nodes["talk"].lm
    lm.save_pretrained(folder)
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_file=str(bundle.folder / "tokenizer.json")).save_pretrained(folder)
    return folder


def built(python: Path, source: Path, out: Path) -> Path:
    """What onnxruntime-genai's own builder makes of the model, in int4."""
    command = [str(python), "-m", "onnxruntime_genai.models.builder", "-m", str(source), "-o", str(out)]
    done = subprocess.run([*command, "-p", "int4", "-e", "cpu"], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the builder of onnxruntime-genai failed: {done.stderr.strip()[-600:]}")
    return out


def copies(bundle: Bundle, assembly: Assembly) -> float:
    """Bytes of a fp32 bundle's graphs and weights over those of the model's parameters and buffers."""
    held = {x.data_ptr(): x.nbytes for x in assembly.state_dict().values()}
    files = [path.stat().st_size for path in bundle.folder.iterdir() if ".onnx" in path.name or path.suffix == ".data"]
    return sum(files) / sum(held.values())


def cold_start() -> float:
    """Seconds of `assembler ask FILE.gguf` for one token, in a fresh process."""
    command = [sys.executable, "-m", "assembler.cli", "ask", str(fetch(parse_source(TALK), Path()))]
    start = time.perf_counter()
    subprocess.run([*command, "--prompt", "What is the capital of France?", "--max-new-tokens", "1"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return time.perf_counter() - start


def contenders(
    folder: Path, stack: ExitStack, peers: dict[str, Path | None]
) -> tuple[dict[str, Contender], dict[str, Any], list[int]]:
    """All that run, what was found out while they were made, and the ids of the fixed text."""
    bundles, reports, assembly = exported(folder, PRECISIONS)
    lm: Any = assembly.nodes["talk"].lm
    found: dict[str, Contender] = {"eager fp32": Eager(lm), **{name: Bundled(b) for name, b in bundles.items()}}
    found["fp32 x 16"] = Bundled(bundles["fp32"], BATCH)
    for name in ("int4", "int4, cache int8"):
        found[f"{name}, {LONG}"] = Bundled(bundles[name])
    facts: dict[str, Any] = {"reports": reports, "copies": copies(bundles["fp32"], assembly), "versions": {}}
    facts["traffic"] = {
        **{f"{name}, {LONG}": traffic(bundles[name], LONG + STEPS / 2) for name in ("int4", "int4, cache int8")},
        **{name: traffic(bundle, PROMPT + STEPS / 2) for name, bundle in bundles.items()},
    }
    half = type(lm)(lm.config).to(torch.bfloat16).eval()
    half.load_state_dict(lm.state_dict())
    found["eager bf16"] = Eager(half)
    sources = {"llama_cpp": lambda _: fetch(parse_source(TALK), Path())}
    sources["genai"] = lambda python: built(python, dequantised(assembly, folder / "hf", bundles["fp32"]), folder / "g")
    for name, python in peers.items():
        if python is not None:
            found[name] = peer = Peer(python, name, sources[name](python))
            stack.callback(peer.close)
            facts["versions"][name] = peer.version
    return {name: found[name] for name in ORDER if name in found}, facts, bundles["fp32"].tokenize(TEXT)


def measured(peers: dict[str, Path | None], rounds: int) -> dict[str, Any]:
    """Everything that the table says."""
    torch.set_num_threads(THREADS)
    starts = [cold_start() for _ in range(3)]
    with tempfile.TemporaryDirectory(prefix="serving-") as folder, ExitStack() as stack:
        everyone, facts, ids = contenders(Path(folder), stack, peers)
        exact = _exact(everyone["eager fp32"], ids)
        apart = ("eager fp32", "fp32 x 16", *(name for name in everyone if str(LONG) in name))
        alone = {name: c for name, c in everyone.items() if name not in apart}
        drifts = {name: kl(contender, ids, exact) for name, contender in alone.items()}
        prompt, long = (np.resize(ids, size).tolist() for size in (PROMPT, LONG))
        asked = {name: (long, STEPS, 1) if str(LONG) in name else (prompt, STEPS, 3) for name in everyone}
        reads, speeds, before = {name: [] for name in everyone}, {name: [] for name in everyone}, others()
        for name, contender in everyone.items():  # what a session makes at its first prompt is no part of a speed
            speed(contender, asked[name][0], 1)
        for _ in range(rounds):
            for name, contender in everyone.items():
                reads[name].append(bandwidth())  # beside each, since other machines on the same host change it
                speeds[name].append(speed(contender, *asked[name]))
        busy, own = others(before)
    facts["others"] = max(0.0, busy - own) / busy
    return {**facts, "cold_start": statistics.median(starts), "kl": drifts, "bandwidth": reads, "speeds": speeds}


def _exact(eager: Contender, ids: Sequence[int]) -> np.ndarray:
    """torch's logits [T, V] after each token."""
    assert isinstance(eager, Eager)
    with torch.inference_mode():
        return eager.lm(torch.tensor([list(ids)])).logits[0].numpy()


def told(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, figure, target): the rows of the table."""
    speeds, drifts, reports = found["speeds"], found["kl"], found["reports"]
    reads = [read for name in speeds for read in found["bandwidth"][name]]

    def ratio(one: str, other: str, what: str, what_other: str = "") -> float:
        pairs = zip(speeds[one], speeds[other], strict=True)
        return statistics.median(a[what] / b[what_other or what] for a, b in pairs)

    def share(name: str) -> float:
        pairs = zip(speeds[name], found["bandwidth"][name], strict=True)
        return statistics.median(speed["decode"] * found["traffic"][name] / read for speed, read in pairs)

    low, middle, high = (read / 1e9 for read in (min(reads), statistics.median(reads), max(reads)))
    read = f"{middle:.1f} GB/s ({low:.1f} to {high:.1f}); {found['others']:.0%} of the CPU was others'"
    yield "memory read by two threads", read, ""
    for name in speeds:
        fast, slow = (statistics.median(s[what] for s in speeds[name]) for what in ("prefill", "decode"))
        of_limit = f", {share(name):.2f} of the limit" if name in found["traffic"] else ""
        moved = f", KL {drifts[name]:.1e}" if name in drifts else ""
        version = f" {found['versions'][name]}" if name in found["versions"] else ""
        yield f"{name}{version}: prefill, decode", f"{fast:,.0f}, {slow:,.1f} tokens/s{of_limit}{moved}", ""
    kl4, kl8 = f"KL {drifts['int4']:.1e}", f"KL {drifts['int8_dynamic']:.1e}"
    yield "fp32 decode, share of the bandwidth", f"{share('fp32'):.2f}", ">= 0.75"
    if "llama_cpp" in speeds:
        figure = f"{ratio('int4', 'llama_cpp', 'decode'):.2f} and {ratio('int4', 'llama_cpp', 'prefill'):.2f}"
        yield "carried-over 4 bits / llama.cpp: decode and prefill", f"{figure}, {kl4}", ">= 1.0 and 2.5, KL <= 3.5e-3"
    else:
        yield "carried-over 4 bits / llama.cpp", INSTALL["llama_cpp"], ">= 1.0 and 2.5"
    yield "carried-over 4 bits / eager fp32: decode", f"{ratio('int4', 'eager fp32', 'decode'):.1f}, {kl4}", ">= 6"
    figure = f"{ratio('int8_dynamic', 'eager bf16', 'prefill'):.2f}, {kl8}"
    yield "dynamic int8 / eager bf16: prefill", figure, ">= 1.5"
    if "genai" in speeds:
        figure = f"{ratio('int4', 'genai', 'decode'):.2f}, {kl4}; its own KL {drifts['genai']:.1e}"
        yield "carried-over 4 bits / genai's builder: decode", figure, ">= 0.7, KL <= 0.05"
    else:
        yield "carried-over 4 bits / genai's builder", INSTALL["genai"], ">= 0.7"
    held, slower = "int4, cache int8", ratio(f"int4, {LONG}", "int4", "decode")
    yield "4-bit decode at 4,096 tokens / at 256, cache in fp32", f"{slower:.2f}, {kl4}", ""
    figure = f"{ratio(f'{held}, {LONG}', held, 'decode'):.2f}, KL {drifts[held]:.1e}"
    yield "the same, cache in 8 bits", figure, ">= 0.35"
    yield "fp32, batch 16 / batch 1: decode", f"{ratio('fp32 x 16', 'fp32', 'decode'):.1f}", ">= 6"
    yield "cold start from GGUF to the first token", f"{found['cold_start']:.1f} s", "<= 4 s"
    longest = ", ".join(f"{reports[name]['seconds']:.1f} s {name}" for name in reports)
    yield "export of the assembly", longest, "<= 20 s"
    yield "bytes of the fp32 bundle's weights / of the model's", f"{found['copies']:.3f}", "one copy"


def rows(peers: dict[str, Path | None] | None = None, rounds: int = 5) -> list[tuple[str, str, str]]:
    """(what, figure, target)."""
    return list(told(measured(peers or dict.fromkeys(INSTALL), rounds)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    for option in INSTALL:
        parser.add_argument(f"--{option.replace('_', '-')}", type=Path, metavar="PYTHON", help=INSTALL[option])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print all that was measured, for machines")
    chosen = parser.parse_args(arguments)
    found = measured({name: getattr(chosen, name) for name in INSTALL}, chosen.rounds)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return 0
    table = Table("what", "measured", "must")
    for row in told(found):
        table.add_row(*row)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
