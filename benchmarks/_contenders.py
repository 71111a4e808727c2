"""What `benchmarks.serving` compares: the bundles of one assembly, transformers in torch, and peers where they are.

A contender has `start(ids)` and `step(ids)`, which give logits [V], or does the same in another process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import torch
from transformers import DynamicCache

from assembler.bundle.decoder import ROTARY
from assembler.bundle.decoding import PAST
from assembler.bundle.drift import drift
from assembler.bundle.runtime import Bundle
from assembler.caching import cache_argument
from benchmarks import _peer


class Bundled:
    """The decoder and the embedding of a bundle, for `batch` rows that all say the same."""

    def __init__(self, bundle: Bundle, batch: int = 1, room: int = 512) -> None:
        self.bundle, self.batch, self.room = bundle, batch, room

    def start(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after a prompt."""
        self.decoding = self.bundle.decoding()
        embeds = self.bundle.embed(np.array([ids] * self.batch, np.int64), None)
        return self.decoding.start(embeds, np.full(self.batch, len(ids), np.int64), self.room)[0]

    def step(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after one more token."""
        return self.decoding.step(self.bundle.embed(np.array([ids] * self.batch, np.int64), None))[0]


class Eager:
    """transformers, with a cache that grows."""

    def __init__(self, lm: Any) -> None:
        self.lm = lm

    def start(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after a prompt."""
        self.cache = DynamicCache(config=self.lm.config)
        return self.step(ids)

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after more tokens."""
        known = cache_argument(self.lm, self.cache)
        out = self.lm(torch.tensor([ids]), **known, use_cache=True, logits_to_keep=1)
        return out.logits[0, -1].float().numpy()


class Peer:
    """`benchmarks/_peer.py` in an interpreter that has the peer's package.

    Raises:
        RuntimeError: it did not start; its last words are in the sentence.
    """

    def __init__(self, python: Path, name: str, path: Path) -> None:
        command = [str(python), _peer.__file__, name, str(path)]
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words, text=True
        )
        self.version = self._answer()["version"]

    def tell(self, **asked: Any) -> dict[str, Any]:
        """Have something done, and what came of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.words.seek(0)
            raise RuntimeError(f"{' '.join(self.process.args[:3])}: {self.words.read().strip()[-600:]}")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


Contender = Bundled | Eager | Peer


def speed(contender: Contender, ids: Sequence[int], steps: int, prompts: int = 1) -> dict[str, float]:
    """Tokens a second of a prompt, `prefill`, and of `steps` tokens that follow, each the likeliest, `decode`.

    The prompt is read `prompts` times, of which the median counts.
    """
    if isinstance(contender, Peer):
        return contender.tell(do="speed", ids=list(ids), steps=steps, prompts=prompts)
    found = _peer.speed(contender, list(ids), steps, prompts)
    rows = getattr(contender, "batch", 1)
    return {key: rows * value for key, value in found.items()}


def kl(contender: Contender, ids: Sequence[int], exact: np.ndarray) -> float:
    """Mean KL divergence, in nats a token, of the contender's distributions from `exact` logits [T, V]."""
    if isinstance(contender, Peer):
        with tempfile.TemporaryDirectory() as folder:
            contender.tell(do="logits", ids=list(ids), out=f"{folder}/logits.npy")
            given = np.load(f"{folder}/logits.npy")
    else:
        given = np.stack([contender.start(ids[:1]), *(contender.step([token]) for token in ids[1:])])
    return drift([exact], [given], [ids])["kl"]


def bandwidth(size: int = 768 * 2**20, reads: int = 9) -> float:
    """Bytes a second that two threads read of memory: the median of several reads of one large matrix.

    The read is a product with a vector, as decoding is, of what numpy lays out in large pages where it can; nothing
    else here reads faster.
    """
    torch.set_num_threads(_peer.THREADS)
    matrix, vector = torch.from_numpy(np.ones((size // 4 // 4096, 4096), np.float32)), torch.ones(4096)
    return size / statistics.median(_timed(lambda: matrix @ vector) for _ in range(reads + 1))


def others(since: tuple[float, float] | None = None) -> tuple[float, float]:
    """Seconds of CPU that the whole computer and this process with its children have used, or have since then."""
    now = psutil.cpu_times()
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    own = sum(sum(process.cpu_times()[:2]) for process in family)
    busy = now.user + now.system + now.nice
    return (busy, own) if since is None else (busy - since[0], own - since[1])


def _timed(do: Callable[[], Any]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def traffic(bundle: Bundle, context: float) -> float:
    """Bytes that one token of one row reads: every weight of the decoder, and the keys and values of `context`."""
    graph = onnx.load(str(bundle.folder / bundle.manifest.decoder), load_external_data=False).graph
    sizes = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.UINT8: 1, onnx.TensorProto.INT8: 1}
    weights = sum(
        sizes.get(x.data_type, 0) * int(np.prod(x.dims)) for x in graph.initializer if not x.name.startswith(ROTARY)
    )
    cache = [x.type.tensor_type for x in graph.input if x.name.startswith(PAST)]
    held = sum(sizes[x.elem_type] * x.shape.dim[1].dim_value * x.shape.dim[3].dim_value for x in cache)
    return weights + context * held
