"""A bundle beside torch: each graph, the whole, and how fast it is."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from assembler.apart import Apart
from assembler.bundle.drift import BOUNDS, drift
from assembler.bundle.manifest import WEIGHTS, read_manifest, write_manifest
from assembler.bundle.parity import LIMITS, compare
from assembler.bundle.precisions import Precisions
from assembler.bundle.runtime import Bundle
from assembler.bundle.writing import widen
from assembler.errors import AssemblerError
from assembler.evaluate import Row, TorchAnswers
from assembler.exportable import feeder
from assembler.files import file_hash
from assembler.graph import Graph
from assembler.ragged import parted

STOOD_IN = "Compared and timed in float32 with the weights of bf16, since this computer's onnxruntime computes no bf16."
END = "end to end"
"""What the whole is called among the graphs."""
STEPS = 16
"""Tokens that the speed is measured on."""


def samples(graph: Graph, node: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Data rows as a bundle's samples: what each input node reads, and a text a column of the prompt."""
    columns = graph.text_columns(node)
    for slot in graph.slot_tokens(node):
        around = graph.ancestors(feeder(graph, node, slot))
        columns.update({name: graph.column(name) for name in around if graph.is_input(name)})
    return [{name: row[column] for name, column in columns.items()} for row in rows]


def reference_of(torch_answers: TorchAnswers, rows: Sequence[Row]) -> dict[str, Any]:
    """What torch gives before adapters are merged."""
    _, _, features = torch_answers.encode(rows)
    answers, logits = torch_answers.told(rows)
    ids = torch_answers.ids(rows)
    return {
        "features": features,
        "logits": torch_answers.logits(rows),
        "ids": ids,
        "answers": answers,
        "answer_logits": logits,
    }


def parity(
    graph: Graph,
    node: str,
    folder: Path,
    rows: Sequence[Row],
    reference: dict[str, Any],
    precisions: Precisions,
    max_kl: float | None = None,
    apart: Sequence[Apart] = (),
) -> dict[str, Any]:
    """Each graph and the whole against torch on real rows, and how fast it is.

    `ok` needs every slot's graph within its limit and the drift within its bound, by default that of the widest of the
    precisions; in fp32 also the whole within its limit and every greedy answer equal. So does each adapter apart.
    """
    started = time.perf_counter()
    bundle = Bundle(folder)
    loaded = time.perf_counter() - started
    asked = samples(graph, node, rows)
    table = []
    given_by = {name: x for file in bundle.manifest.encoders for name, x in bundle.features(file, asked).items()}
    for slot, features in zip(graph.slot_tokens(node), reference["features"], strict=True):
        given, real = given_by[slot]
        filled = bundle.manifest.slots[slot]
        name = f"{filled.graph}, {slot}" if filled.outputs else filled.graph
        wanted, mask = parted(features)
        if mask is not None:
            assert real is not None
            if not (mask.cpu().numpy() == real).all():
                raise AssemblerError(f"{name} marks other tokens as real than torch does; nothing was written")
            wanted, given = wanted[mask], given[real]
        table.append(compare(name, wanted, given, LIMITS[precisions.slots.get(slot, "fp32")]))
    bound = max(BOUNDS[precision] for precision in precisions.all) if max_kl is None else max_kl
    exact = precisions.all == {"fp32"}
    ways = [(None, reference), *((adapter.name, adapter.reference) for adapter in apart)]
    (whole, greedy, moved, ok), *others = [_end_to_end(bundle, asked, x, bound, exact, name) for name, x in ways]
    table += [_row(*other) for other in others]
    if bundle.manifest.prompts is not None and bundle.reader is not None:
        with reading(bundle):
            again = [_row(*_end_to_end(bundle, asked, x, bound, exact, name)) for name, x in ways]
        table += [{**row, "graph": row["graph"].replace(END, bundle.manifest.prompts)} for row in again]
    ok = ok and all(row["ok"] for row in table)
    return {
        "precision": str(precisions),
        "note": STOOD_IN if "bf16" in precisions.all else "",
        "samples": len(rows),
        "graphs": [*table, whole],
        "greedy": greedy,
        "drift": {**moved, "bound": bound},
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "load_seconds": loaded,
        "speed": speed(bundle, asked[0]),
        "ok": ok,
    }


@contextmanager
def comparable(folder: Path) -> Iterator[Path]:
    """The bundle itself, or a stand-in for one in bf16 where only a CPU is at hand, which computes none.

    The stand-in has the same graphs and weights, each number of which is the same in float32; what bf16 loses in the
    sums it does not show.
    """
    manifest = read_manifest(folder)
    if manifest.precision != "bf16":
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix=".standing-in-", dir=folder.parent) as made:
        twin = Path(made)
        for name in manifest.files:
            if not name.endswith((".onnx", WEIGHTS)):
                shutil.copyfile(folder / name, twin / name)
        for name in manifest.graphs:
            widen(folder / name, twin / name)
        files = {path.name: file_hash(path) for path in sorted(twin.iterdir())}
        write_manifest(twin, manifest.model_copy(update={"precision": "fp32", "files": files}))
        yield twin


@contextmanager
def reading(bundle: Bundle) -> Iterator[None]:
    """Meanwhile the bundle runs its graph for long prompts on everything."""
    steps = bundle.decoder
    assert bundle.reader is not None
    bundle.decoder = bundle.reader()
    try:
        yield
    finally:
        bundle.decoder = steps


def _end_to_end(
    bundle: Bundle,
    asked: Sequence[dict[str, Any]],
    reference: dict[str, Any],
    bound: float,
    exact: bool,
    adapter: str | None = None,
) -> tuple[dict[str, Any], float, dict[str, Any], bool]:
    """The next token's logits, the share of equal greedy answers, the drift, and whether that is near enough."""
    name = END if adapter is None else f"{END}, with {adapter}"
    whole = compare(name, reference["logits"], bundle.logits(asked, adapter))
    given = bundle.generate_ids(asked, adapter=adapter)
    greedy = sum(a == b for a, b in zip(reference["ids"], given, strict=True)) / len(given)
    told = bundle.told(asked, reference["answers"], adapter)
    moved = drift(reference["answer_logits"], told, reference["answers"])
    return whole, greedy, moved, moved["kl"] <= bound and (not exact or (whole["ok"] and greedy == 1.0))


def _row(whole: dict[str, Any], greedy: float, moved: dict[str, Any], ok: bool) -> dict[str, Any]:
    """What `_end_to_end` found as a row of the report's graphs."""
    return {**whole, "greedy": greedy, "kl": moved["kl"], "ok": ok}


def speed(bundle: Bundle, sample: dict[str, Any]) -> dict[str, float]:
    """Tokens a second of one row's prompt and of what follows it, here and now; the first run does not count."""
    embeds, lengths = bundle.encode([sample])
    for _ in range(2):
        decoding, start = bundle.decoding(), time.perf_counter()
        token = decoding.start(embeds, lengths, STEPS).argmax(-1)
        middle = time.perf_counter()
        for _ in range(STEPS):
            token = decoding.step(bundle.embed(token[:, None].astype(np.int64), None)).argmax(-1)
        end = time.perf_counter()
    return {"prefill": float(lengths[0]) / (middle - start), "decode": STEPS / (end - middle)}
