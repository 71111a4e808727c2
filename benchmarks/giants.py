"""Summary of SigLIP-so400m, Whisper-large-v3 and Llama-3-8B from inline configs: wall time and peak memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

SPEC = Path(__file__).parents[1] / "exports" / "gallery" / "siglip-whisper-llama3.yaml"


def rows() -> list[tuple[str, str, str]]:
    """(what, figure, target)."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "assembler.cli", "summary", str(SPEC), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    total = json.loads(done.stdout)["total"]
    return [
        (f"summary of {total:,} parameters", f"{seconds:.1f} s", "< 15 s"),
        ("its peak memory", f"{peak:.2f} GiB", "< 1.86 GiB (2 GB)"),
    ]
