"""A written decoder on onnxruntime's CUDA provider beside transformers' `generate`, in half precision, in one run.

    python -m benchmarks.gpu [--rounds 5] [--json]        # or: make bench-gpu

The architecture is Llama's at 1.2 B parameters with random weights: what is measured is speed alone. At each batch the
two take turns, 512 tokens of prompt and 128 that follow. Without a GPU nothing is measured, and it says so.
`--device cpu --tiny` runs the same steps on toy sizes in float32, which shows that they run and nothing else.
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

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, LlamaConfig

from assembler.bundle.decoder import DecoderWriter, decoder_writer
from assembler.bundle.decoding import InPlace

LARGE = {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
LARGE |= {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 4096}
TINY = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
BATCHES = (1, 8, 32)


class Written:
    """The decoder and the embedding as the project writes them, on a device."""

    def __init__(self, lm: Any, folder: Path, device: str) -> None:
        writer = decoder_writer(lm, "fp16" if device == "cuda" else "fp32", dict)
        assert isinstance(writer, DecoderWriter), writer
        writer.write(folder)
        self.device, self.type = device, writer.real
        self.decoder, self.embedding = (self._session(folder / name) for name in ("decoder.onnx", "embedding.onnx"))
        self.none = np.zeros((0, lm.config.hidden_size), self.type)

    def _session(self, path: Path) -> onnxruntime.InferenceSession:
        provider = "CUDAExecutionProvider" if self.device == "cuda" else "CPUExecutionProvider"
        session = onnxruntime.InferenceSession(str(path), providers=[provider])
        if provider not in session.get_providers():
            raise SystemExit(f"onnxruntime did not load {provider}; pip install 'onnxruntime-gpu[cuda,cudnn]'")
        return session

    def run(self, ids: np.ndarray, steps: int) -> tuple[float, float]:
        """Seconds to the first token, and tokens a second after it."""
        decoding = InPlace(self.decoder, self.device)
        start = time.perf_counter()
        token = decoding.start(self._embed(ids), np.full(len(ids), ids.shape[1], np.int64), steps).argmax(-1)
        first = time.perf_counter()
        for _ in range(steps - 1):
            token = decoding.step(self._embed(token[:, None])).argmax(-1)
        return first - start, len(ids) * (steps - 1) / (time.perf_counter() - first)

    def _embed(self, ids: np.ndarray) -> np.ndarray:
        return np.asarray(self.embedding.run(None, {"input_ids": ids.astype(np.int64), "features": self.none})[0])


class Generated:
    """transformers' `generate`."""

    def __init__(self, lm: Any, device: str) -> None:
        self.lm = lm.to(device, torch.float16 if device == "cuda" else torch.float32)
        self.device = device

    def run(self, ids: np.ndarray, steps: int) -> tuple[float, float]:
        """The same of `generate`: the second number is from a run of one token and a run of all."""
        first, whole = self._seconds(ids, 1), self._seconds(ids, steps)
        return first, len(ids) * (steps - 1) / max(whole - first, 1e-9)

    def _seconds(self, ids: np.ndarray, steps: int) -> float:
        given = torch.from_numpy(ids).to(self.device)
        self._wait()
        start = time.perf_counter()
        knobs = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False, "pad_token_id": 0}
        self.lm.generate(given, attention_mask=torch.ones_like(given), **knobs)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def measured(device: str, tiny: bool, rounds: int) -> dict[str, Any]:
    """By batch: seconds to the first token and tokens a second of both sides, a pair a round."""
    torch.manual_seed(0)
    prompt, steps = (12, 4) if tiny else (512, 128)
    lm = AutoModelForCausalLM.from_config(LlamaConfig(**(TINY if tiny else LARGE), tie_word_embeddings=True)).eval()
    found: dict[str, Any] = {"card": torch.cuda.get_device_name() if device == "cuda" else "no GPU", "batches": {}}
    with tempfile.TemporaryDirectory() as folder:
        written, generated = Written(lm, Path(folder), device), Generated(lm, device)
        for batch in BATCHES:
            ids = np.random.default_rng(batch).integers(3, lm.config.vocab_size, (batch, prompt))
            pairs = [(written.run(ids, steps), generated.run(ids, steps)) for _ in range(rounds + 1)]
            found["batches"][batch] = pairs[1:]  # the first warms up
    return found


def told(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(what, ours and theirs, ratio)."""
    for batch, pairs in found["batches"].items():
        ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        first, rate = ([statistics.median(x[i] for x in side) for side in (ours, theirs)] for i in (0, 1))
        quicker = statistics.median(b[0] / a[0] for a, b in pairs)
        faster = statistics.median(a[1] / b[1] for a, b in pairs)
        yield (
            f"batch {batch}: ms to the first token",
            f"{first[0] * 1e3:.1f} / {first[1] * 1e3:.1f}",
            f"{quicker:.2f} x",
        )
        yield f"batch {batch}: tokens/s after it", f"{rate[0]:,.0f} / {rate[1]:,.0f}", f"{faster:.2f} x"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where there is no GPU to measure on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to see that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print all that was measured, for machines")
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here that torch can use: nothing was measured", file=sys.stderr)
        return 1
    found = measured(chosen.device, chosen.tiny, chosen.rounds)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return 0
    table = Table("what", "written decoder / transformers", "written / transformers", title=found["card"])
    for row in told(found):
        table.add_row(*row)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
