"""A server under many clients: answers that are lost or another's, memory, times, and what answering together gains.

python -m benchmarks.soak [--minutes 5] [--clients 64] [--bundle DIR] [--json]

`--minutes 60` is the long form. Without a bundle SmolLM2-135M-Instruct behind MobileNetV2 is exported, its projector
untrained. What each client should be told is asked of the bundle itself first, one question at a time; the server then
has the same questions from one client, and from all clients at once. Exit code 1: an answer is lost or another's,
memory grows by more than a tenth after the first quarter, or answering together gains less than fourfold.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from assembler.bundle.runtime import Bundle
from benchmarks._weights import SPEC

TRUSTING_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The server speaks plain HTTP; a context of each client's own would read all certificates of this computer."""
KINDS = 24
"""Different questions; each client asks them in an order of its own."""
TOKENS = 16
QUESTIONS = ("What is this?", "Which colours do you see?", "Is it large or small?", "Tell me a short story about it.")
GROWTH, GAIN = 1.10, 4.0


def picture(number: int) -> Image.Image:
    """One of the pictures that are asked about."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def samples() -> list[dict[str, Any]]:
    """What is asked: every picture with every question, until there are enough."""
    return [{"photo": picture(i // len(QUESTIONS)), "question": QUESTIONS[i % len(QUESTIONS)]} for i in range(KINDS)]


def body(sample: dict[str, Any]) -> dict[str, Any]:
    """The request of a sample."""
    file = io.BytesIO()
    sample["photo"].save(file, "png")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": sample["question"]}]
    return {"messages": [{"role": "user", "content": parts}], "max_tokens": TOKENS}


def exported(folder: Path) -> Path:
    """The bundle that is served when none is named."""
    from assembler.check import check
    from assembler.compile import compile_graph
    from assembler.export import export
    from assembler.fetching import fetch_weights
    from assembler.spec import parse

    fetch_weights(check(parse(SPEC, Path("soak.yaml"))).require())
    graph = check(parse(SPEC, Path("soak.yaml"))).require()
    rows = [{**sample, "answer": "a picture"} for sample in samples()[:4]]
    export(graph, compile_graph(graph), folder / "bundle", "fp32", rows)
    return folder / "bundle"


class Server:
    """`assembler serve` in a process of its own."""

    def __init__(self, bundle: Path, clients: int) -> None:
        command = [sys.executable, "-m", "assembler.cli", "serve", str(bundle), "--port", "0"]
        limits = [f"rows={min(16, clients)}", f"waiting={4 * clients}", "context=512"]
        command += [word for limit in limits for word in ("--limit", limit)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.url = ""
        threading.Thread(target=self._read, daemon=True).start()
        deadline = time.monotonic() + 60
        while not self.url and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.05)
        if not self.url:
            raise SystemExit("the server did not start")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if '"url"' in line:
                self.url = json.loads(line)["url"]

    def memory(self) -> int:
        """Bytes that are in memory now."""
        return psutil.Process(self.process.pid).memory_info().rss

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self.process.terminate()
        self.process.wait(60)


class Load:
    """Clients that ask one after another, for a time; what came back, and how long it took."""

    def __init__(self, url: str, wanted: Sequence[str]) -> None:
        self.url, self.wanted = url, wanted
        self.bodies = [body(sample) for sample in samples()]
        self.seconds: list[float] = []
        self.wrong: list[str] = []

    def run(self, clients: int, seconds: float) -> float:
        """Ask from so many clients for so long; answers a second."""
        before, ready = len(self.seconds), threading.Barrier(clients + 1)
        threads = [threading.Thread(target=self._client, args=(n, ready, seconds)) for n in range(clients)]
        for thread in threads:
            thread.start()
        ready.wait()
        start = time.monotonic()
        for thread in threads:
            thread.join()
        return (len(self.seconds) - before) / (time.monotonic() - start)

    def _client(self, number: int, ready: threading.Barrier, seconds: float) -> None:
        order = np.random.default_rng(number)
        with httpx.Client(timeout=180, trust_env=False, verify=TRUSTING_NOBODY) as client:
            ready.wait()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                which = int(order.integers(KINDS))
                start = time.perf_counter()
                try:
                    answer = client.post(f"{self.url}/v1/chat/completions", json=self.bodies[which])
                    told = answer.json()["choices"][0]["message"]["content"]
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.wrong.append(f"lost: {type(error).__name__} {error}")
                    continue
                self.seconds.append(time.perf_counter() - start)
                if told != self.wanted[which]:
                    self.wrong.append(f"another's: {told!r} for {self.wanted[which]!r}")


def measured(bundle: Path, clients: int, minutes: float) -> dict[str, Any]:
    """Everything about one soak: alone for a while, then four quarters of `minutes` together."""
    quarter = 15 * minutes
    whole = Bundle(bundle)
    wanted = [whole.generate([sample], TOKENS)[0] for sample in samples()]
    server = Server(bundle, clients)
    try:
        load = Load(server.url, wanted)
        load.run(1, min(5.0, quarter))
        alone = load.run(1, min(30.0, quarter))
        load.seconds.clear()
        sizes: list[int] = []
        rates = []
        for _ in range(4):
            rates.append(load.run(clients, quarter))
            sizes.append(server.memory())
    finally:
        server.stop()
    middle, last = np.percentile(load.seconds, [50, 99])
    together = float(np.mean(rates))
    found = {"clients": clients, "minutes": minutes, "answers": len(load.seconds), "wrong": len(load.wrong)}
    found |= {"first_wrong": load.wrong[:3], "p50": float(middle), "p99": float(last)}
    found |= {"alone": alone, "together": together, "gain": together / alone}
    found |= {"memory": sizes, "growth": sizes[-1] / sizes[0]}
    return {**found, "met": not load.wrong and found["growth"] <= GROWTH and found["gain"] >= GAIN}


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long all clients ask")
    parser.add_argument("--clients", type=int, default=64, help="how many ask at once")
    parser.add_argument("--bundle", type=Path, help="a bundle with `photo` and `question`")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(chosen.bundle or exported(Path(folder)), chosen.clients, chosen.minutes)
    if chosen.json:
        print(json.dumps(found, indent=2))
    else:
        table = Table("what", "measured", title=f"{found['clients']} clients, {found['minutes']:g} minutes")
        table.add_row("answers; lost or another's", f"{found['answers']:,}; {found['wrong']}")
        table.add_row("seconds an answer, p50 and p99", f"{found['p50']:.2f} and {found['p99']:.2f}")
        table.add_row("answers a second, together / one at a time", f"{found['together']:.2f} / {found['alone']:.2f}")
        table.add_row("gain", f"{found['gain']:.2f} x")
        quarters = ", ".join(f"{size / 2**20:,.0f}" for size in found["memory"])
        table.add_row("MiB in memory after each quarter", quarters)
        Console().print(table)
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
