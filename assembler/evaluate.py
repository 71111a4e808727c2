"""Evaluate: a model's answers on rows it has not seen, by the metrics that fit the answer, against a plain baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assembler.batches import Batches, left_padded
from assembler.compile import Assembly, inference
from assembler.errors import AssemblerError
from assembler.graph import Graph
from assembler.rows import Row, as_rows


class TorchAnswers:
    """Answers of a compiled model: texts of an LM, classes of a classifier."""

    def __init__(self, graph: Graph, assembly: Assembly, node: str | None = None) -> None:
        self.graph, self.assembly = graph, assembly.to("cuda" if torch.cuda.is_available() else "cpu")
        self.node = node or graph.objectives[0]
        self.batches = Batches(graph)
        self.collator: Any = self.batches.collators[self.node]

    def __call__(self, rows: Sequence[Row]) -> list[Any]:
        if hasattr(self.collator, "prompts"):
            return [self.collator.tokenizer.decode(ids, skip_special_tokens=True) for ids in self.ids(rows)]
        with inference(self.assembly):
            return self.assembly(**self._on_device(self.batches(list(rows))))["logits"].argmax(-1).tolist()

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

    def __call__(self, rows: Sequence[Row]) -> list[str]:
        from assembler.export import samples

        return self.bundle.generate(samples(self.graph, self.graph.objectives[0], rows))


def evaluate(graph: Graph, given: Sequence[Any], learned: Sequence[Row], held_out: Sequence[Row]) -> dict[str, Any]:
    """Scores of the answers `given` to the held-out rows: `exact_match` of texts, or `accuracy` and `macro_f1` of
    classes; `n`; and the `baseline` that always gives the commonest answer of the rows to learn from.

    Raises:
        AssemblerError: no row is held out.
    """
    if not held_out:
        raise AssemblerError(f"{graph.spec.path}: no row is held out; set data.held_out, such as 0.2")
    kind = answer_kind(graph)
    column = graph.column(kind)
    clean = _normal if kind == "answer" else _same
    wanted = [as_rows(held_out).plain(i)[column] for i in range(len(held_out))]
    common = Counter(as_rows(learned).plain(i)[column] for i in range(len(learned))).most_common(1)[0][0]
    pairs = [(clean(g), clean(w)) for g, w in zip(given, wanted, strict=True)]
    name = "exact_match" if kind == "answer" else "accuracy"
    scores: dict[str, Any] = {name: sum(g == w for g, w in pairs) / len(pairs), "n": len(pairs)}
    if kind == "label":
        from sklearn.metrics import f1_score

        scores["macro_f1"] = float(f1_score([w for _, w in pairs], [g for g, _ in pairs], average="macro"))
    scores["baseline"] = sum(w == clean(common) for _, w in pairs) / len(pairs)
    samples = [{"answer": g, "expected": w} for g, w in zip(given, wanted, strict=True)]
    return {**scores, "metric": name, "samples": samples}


def answer_kind(graph: Graph) -> str:
    """What the first objective learns to give: `answer`, a text, or `label`, a class.

    Raises:
        AssemblerError: it gives neither.
    """
    node = graph.objectives[0]
    columns = graph.parts[node].columns(node, ())
    kind = next((name for name in ("answer", "label") if name in columns), None)
    if kind is None:
        raise AssemblerError(f"{graph.spec.path}: {node} answers nothing: it has neither an answer nor a label")
    return kind


def _same(label: Any) -> Any:
    return label


def _normal(text: str) -> str:
    """Text without space at its ends and without regard to case."""
    return text.strip().casefold()
