"""Peak memory of a step by torch's profiler on the CPU; torch alone, so that any environment can run it."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function


def peak_bytes(made: Callable[[], Callable[[], None]]) -> int:
    """Bytes at the peak of the second call of the step that `made` gives, of all that living tensors took since `made`
    was called, by torch's profiler on the CPU."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = made()
        for number in range(2):
            with record_function(f"step {number}"):
                step()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events: list[dict[str, Any]] = json.loads(Path(f"{folder}/trace.json").read_text())["traceEvents"]
    memory = sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"])
    # The profiler goes on counting from where an earlier profile in this process left off.
    start = memory[0]["args"]["Total Allocated"] - memory[0]["args"]["Bytes"]
    (span,) = [event for event in events if event.get("name") == "step 1" and event.get("cat") == "user_annotation"]
    inside = [event for event in memory if span["ts"] <= event["ts"] <= span["ts"] + span["dur"]]
    return max(event["args"]["Total Allocated"] for event in inside) - start
