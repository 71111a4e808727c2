"""Evaluate: a model's answers on rows it has not seen, by the metrics that fit the answer, beside plain baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assembler.batches import Batches, left_padded
from assembler.compile import Assembly, inference
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.metrics import DEFAULTS, METRICS, score, usual_answer
from assembler.part import Answers
from assembler.rows import Row, as_rows


class TorchAnswers:
    """Answers of a compiled model: of `node`, or of the first that answers."""

    def __init__(self, graph: Graph, assembly: Assembly, node: str | None = None) -> None:
        self.graph, self.assembly = graph, assembly.to("cuda" if torch.cuda.is_available() else "cpu")
        self.node = answering(graph, node)
        self.batches = Batches(graph)
        self.collator: Any = self.batches.collators.get(self.node)

    def __call__(self, rows: Sequence[Row]) -> list[Any]:
        if hasattr(self.collator, "prompts"):
            return [self.collator.text(ids) for ids in self.ids(rows)]
        part: Any = self.graph.parts[self.node]
        batch = {**self.batches.samples(rows), **self.batches.extras(rows, self._asked())}
        with inference(self.assembly):
            given = part.answer(self.assembly.output(self.node, self._on_device(batch)))
        return [self.collator.text(ids) for ids in given] if hasattr(self.collator, "text") else given

    def _asked(self) -> set[str]:
        """The parts that make more of a row than its right answer, which one who asks does not know."""
        parts = self.graph.parts
        before = {n for n in self.graph.ancestors(self.node) if set(parts[n].extras) - set(parts[n].targets)}
        return before | set(self.graph.adapters)

    def ids(
        self, rows: Sequence[Row], tell: Callable[[list[list[int]]], None] = lambda answers: None
    ) -> list[list[int]]:
        """The greedy answers' token ids; `tell` hears them as they grow."""
        ids, mask, features = self.encode(rows)
        part: Any = self.graph.parts[self.node]
        with inference(self.assembly):
            stop = self.collator.prompt.stop
            return self._lm.generate_ids(ids, mask, features, part.max_new_tokens, stop, tell)

    def logits(self, rows: Sequence[Row]) -> torch.Tensor:
        """Logits of the first answer token: [B, V]."""
        ids, mask, features = self.encode(rows)
        with inference(self.assembly):
            return self._lm.logits(ids, mask, features, 1)[:, -1]

    def told(self, rows: Sequence[Row]) -> tuple[list[list[int]], list[np.ndarray]]:
        """The expected answers' tokens of every row, and the logits [answer tokens, V] before each of them."""
        batch = self._on_device(self.batches(list(rows)))
        with inference(self.assembly):
            features = self.assembly.features(self.node, batch)
            own = [batch[f"{self.node}_{key}"] for key in ("input_ids", "attention_mask", "labels")]
            logits = self._lm(*own, *features)["logits"].float().cpu()  # [B, A, V]
        real = own[2].cpu() >= 0  # [B, A]
        ids = [row[mask].tolist() for row, mask in zip(own[2].cpu(), real, strict=True)]
        return ids, [row[mask].numpy() for row, mask in zip(logits, real, strict=True)]

    def cached(self, rows: Sequence[Row]) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Keys and values [B, kv heads, T, d] of every layer for prompts and right answers, and the mask [B, T]."""
        batch = self._on_device(self.batches(list(rows)))
        with inference(self.assembly):
            features = self.assembly.features(self.node, batch)
            own = [batch[f"{self.node}_{key}"] for key in ("input_ids", "attention_mask")]
            return self._lm.cached(*own, features)

    def encode(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Prompt ids [B, T], mask [B, T] and the features of the wired slots."""
        device = next(self.assembly.parameters()).device
        ids, mask = (x.to(device) for x in left_padded(self.collator.prompts(rows)))
        with inference(self.assembly):
            features = self.assembly.features(self.node, self._on_device(self.batches.samples(rows)))
        return ids, mask, features

    @property
    def _lm(self) -> Any:
        return self.assembly.nodes[self.node]

    def _on_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        device = next(self.assembly.parameters()).device
        return {key: tensor.to(device) for key, tensor in batch.items()}


class BundleAnswers:
    """Answers of an exported bundle on the same rows."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        from assembler.bundle.runtime import Bundle

        self.graph, self.bundle = graph, Bundle(folder)
        self.node = next(node for node in graph.objectives if "input_ids" in graph.parts[node].extras)

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        from assembler.parity import samples

        return self.bundle.generate(samples(self.graph, self.node, rows))


def evaluate(
    graph: Graph, given: Sequence[Any], learned: Sequence[Row], held_out: Sequence[Row], node: str | None = None
) -> dict[str, Any]:
    """Scores of the answers `given` by an objective to the held-out rows, by the metrics of the spec.

    Each metric is a key; `metric` names the first; `intervals` and `baselines` hold, a metric, the 95 % bootstrap
    interval and what the commonest answer, the mean score or chance gets; `n` counts rows.

    Raises:
        AssemblerError: no row is held out, or the node answers nothing.
    """
    if not held_out:
        raise AssemblerError(f"{graph.spec.path}: no row is held out; set data.held_out, such as 0.2")
    node, kind = answering(graph, node), answer_kind(graph, node)
    report: dict[str, Any] = {"node": node, "n": len(held_out), "intervals": {}, "baselines": {}}
    columns, wanted = expected_columns(graph, node), _wanted(graph, node, held_out)
    usual = (
        [None] if kind == "pair" else [usual_answer(kind, x) for x in zip(*_wanted(graph, node, learned), strict=True)]
    )
    for index, column in enumerate(columns or [""]):
        here = [x if kind == "pair" else x[index] for x in wanted]
        answers = [x[index] for x in given] if len(columns) > 1 else given
        for name in metrics_of(graph, node):
            found = score(METRICS[name], answers, here, usual[index])
            key = f"{name}.{column}" if len(columns) > 1 else name
            report[key] = found["value"]
            report["intervals"][key], report["baselines"][key] = [found["low"], found["high"]], found["baseline"]
    told = [x[0] if len(x) == 1 else list(x) for x in wanted]
    samples = [] if kind == "pair" else [{"answer": g, "expected": w} for g, w in zip(given, told, strict=True)]
    return {**report, "metric": next(iter(report["intervals"])), "samples": samples}


def answering(graph: Graph, node: str | None = None) -> str:
    """The node itself, or the first that answers, an LLM before a head.

    Raises:
        AssemblerError: it answers nothing, or none does.
    """
    able = [name for name in graph.objectives if getattr(graph.parts[name], "answers", None)]
    able.sort(key=lambda name: "input_ids" not in graph.parts[name].extras)
    if node is None and able:
        return able[0]
    if node not in able:
        raise AssemblerError(
            f"{graph.spec.path}: {node or 'no node'} answers anything; those that do: {able or 'none'}"
        )
    return node


def answer_kind(graph: Graph, node: str | None = None) -> Answers:
    """What a node, or the first that answers, gives: a `text`, a `label`, a `score` or a `pair` of embeddings."""
    part: Any = graph.parts[answering(graph, node)]
    return part.answers


def expected_columns(graph: Graph, node: str | None = None) -> list[str]:
    """The data columns that hold its right answers; none for a pair."""
    part: Any = graph.parts[answering(graph, node)]
    return [graph.column(name) for name in part.expected()]


def metrics_of(graph: Graph, node: str) -> list[str]:
    """The metrics of a node's answers: those of the spec that tell of such answers, or the usual ones."""
    part: Any = graph.parts[node]
    chosen = graph.document.data.metrics if graph.document.data else []
    fit = [name for name in chosen if METRICS[name].answers == part.answers]
    return fit or list(part.metrics or DEFAULTS[part.answers])


def _wanted(graph: Graph, node: str, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    """The right answer to every row, a value a column; for a pair the names of its halves."""
    plain, columns = [as_rows(rows).plain(i) for i in range(len(rows))], expected_columns(graph, node)
    if answer_kind(graph, node) != "pair":
        return [tuple(row[column] for column in columns) for row in plain]
    halves = [_text_columns(graph, edge.source) for edge in graph.incoming[node]]
    return [
        tuple(" ".join(row[name] for name in names) if names else f"row {i}" for names in halves)
        for i, row in enumerate(plain)
    ]


def _text_columns(graph: Graph, source: str) -> list[str]:
    """The text columns that a value is made of, when nothing else is in it: equal texts are one half of a pair."""
    inputs = [name for name in graph.ancestors(source) if graph.is_input(name)]
    kinds = {kind for name in inputs for kind in graph.parts[name].columns(name, ()).values()}
    return [graph.column(name) for name in inputs] if kinds == {"text"} else []
