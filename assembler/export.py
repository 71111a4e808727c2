"""Export: a trained model as an ONNX bundle with a parity report, or a refusal with node and reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from assembler.batches import Batches
from assembler.bundle.graphs import ExportRefused, export_decoder, export_embedding, export_graph, quantize
from assembler.bundle.manifest import Manifest, Precision, Slot
from assembler.bundle.parity import compare
from assembler.bundle.runtime import Bundle
from assembler.compile import Assembly
from assembler.errors import AssemblerError
from assembler.evaluate import Row, TorchAnswers
from assembler.files import aside, file_hash, write_text
from assembler.graph import Graph

SAMPLES = 8


class Branch(nn.Module):
    """Everything between one input node and one slot: its tensor -> tokens [B, T, D]."""

    def __init__(self, assembly: Assembly, chain: list[tuple[str, str]]) -> None:
        super().__init__()
        self.names = [name for name, _ in chain]
        self.layers = nn.ModuleList([assembly.nodes[name] for name, _ in chain])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def export(
    graph: Graph,
    assembly: Assembly,
    out: Path,
    precision: Precision,
    rows: Sequence[Row],
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Write the bundle at `out` and return its parity report; `rows` are real samples to compare on.

    Adapters are worked into the weights first, so `assembly` is not to be trained on afterwards. Nothing is left at
    `out` when it fails.

    Raises:
        ExportRefused: a node has no faithful graph.
        AssemblerError: `out` exists, or the fp32 bundle is further than 1e-4 from torch.
    """
    if out.exists():
        raise AssemblerError(f"{out} exists already; choose another folder or remove it")
    node = _language_model(graph)
    _check_inputs(graph, node)
    assembly.to("cpu").float().eval()  # a bundle is written from float32, whatever the weights were kept in
    reference = _reference(TorchAnswers(graph, assembly, node), rows[:SAMPLES])
    for part in graph.adapters.values():
        part.merge(assembly.nodes[part.host])
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside(out) as draft:
        draft.mkdir()
        _write_graphs(graph, assembly, node, draft, precision, say)
        say("manifest and tokenizer")
        _write_manifest(graph, node, draft, precision)
        say("parity")
        report = parity(graph, assembly, node, draft, rows[:SAMPLES], reference, precision)
        write_text(draft / "parity.json", json.dumps(report, indent=2) + "\n")
        if not report["ok"]:
            worst = max(report["graphs"], key=lambda row: row["relative"])
            raise AssemblerError(
                f"the bundle is not what torch computes: {worst['graph']} is {worst['relative']:.1e} off, relative, "
                f"greedy answers agree in {report['greedy']:.0%}; nothing was written"
            )
    return report


def _language_model(graph: Graph) -> str:
    lms = [node for node in graph.objectives if "input_ids" in graph.parts[node].extras]
    if len(lms) != 1:
        first = graph.objectives[0] if graph.objectives else "the graph"
        raise ExportRefused(f"{first}: a bundle answers with one causal LM, and this graph has {len(lms)}")
    return lms[0]


def _check_inputs(graph: Graph, node: str) -> None:
    """Every slot comes from one picture, the input that the bundle's runtime reads."""
    for slot in graph.slot_tokens(node):
        source, _ = _chain(graph, node, slot)
        value = graph.values[source]
        if value is None or value.kind != "image":
            raise ExportRefused(f"{source}: a bundle's runtime reads pictures, and this node gives {value}")


def _chain(graph: Graph, node: str, slot: str) -> tuple[str, list[tuple[str, str]]]:
    """The input node that feeds a slot, and the (node, port) steps from there."""
    edge = next(edge for edge in graph.incoming[node] if edge.port == slot)
    steps: list[tuple[str, str]] = []
    while graph.incoming[edge.source]:
        if len(graph.incoming[edge.source]) > 1:
            raise ExportRefused(f"{edge.source}: it joins several wires, and a slot's graph takes one input")
        steps.append((edge.source, edge.port))
        edge = graph.incoming[edge.source][0]
    return edge.source, steps[::-1]


def _write_graphs(
    graph: Graph, assembly: Assembly, node: str, folder: Path, precision: Precision, say: Callable[[str], None]
) -> None:
    lm: Any = assembly.nodes[node].lm  # type: ignore[union-attr]
    for slot in graph.slot_tokens(node):
        source, chain = _chain(graph, node, slot)
        value = graph.values[source]
        assert value is not None
        say(f"graph of {slot}")
        sample = torch.randn(2, *[int(dim) for dim in value.shape[1:] if isinstance(dim, int)])
        export_graph(
            Branch(assembly, chain), (sample,), folder / f"{slot}.onnx", [source], ["features"], {source: {0: "batch"}}
        )
    say("graph of the embedding")
    export_embedding(lm.get_input_embeddings(), folder / "embedding.onnx")
    say("graph of the decoder")
    if precision == "fp32":
        export_decoder(lm, folder / "decoder.onnx")
        return
    inner = folder / "fp32"
    inner.mkdir()
    export_decoder(lm, inner / "decoder.onnx")
    say(f"decoder to {precision}")
    quantize(inner / "decoder.onnx", folder / "decoder.onnx", precision, [])
    shutil.rmtree(inner)


def _write_manifest(graph: Graph, node: str, folder: Path, precision: Precision) -> None:
    part: Any = graph.parts[node]
    tokenizer = part.load_tokenizer(graph.base)
    prompt = part.prepared(node, graph, tokenizer)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write_text(folder / "spec.yaml", graph.spec.dump())
    batches = Batches(graph)
    slots = {}
    for slot, tokens in graph.slot_tokens(node).items():
        source, _ = _chain(graph, node, slot)
        slots[slot] = Slot(graph=f"{slot}.onnx", input=source, tokens=tokens, processor=batches.inputs[source][1])
    manifest = Manifest(
        name=graph.document.name,
        precision=precision,
        slots=slots,
        prompt=list(prompt.parts),
        bos=prompt.bos,
        stop=list(prompt.stop),
        max_new_tokens=part.max_new_tokens,
        vocab_size=graph.vocabulary(node),
        files={path.name: file_hash(path) for path in sorted(folder.iterdir())},
    )
    write_text(folder / "manifest.json", manifest.model_dump_json(indent=2, exclude_none=True) + "\n")


def samples(graph: Graph, node: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Data rows as a bundle's samples: an image a slot, a text a column."""
    columns = graph.text_columns(node)
    for slot in graph.slot_tokens(node):
        source, _ = _chain(graph, node, slot)
        columns[slot] = graph.column(source)
    return [{slot: row[column] for slot, column in columns.items()} for row in rows]


def _reference(torch_answers: TorchAnswers, rows: Sequence[Row]) -> dict[str, Any]:
    """What torch gives before adapters are merged."""
    _, _, features = torch_answers.encode(rows)
    return {"features": features, "logits": torch_answers.logits(rows), "ids": torch_answers.ids(rows)}


def parity(
    graph: Graph,
    assembly: Assembly,
    node: str,
    folder: Path,
    rows: Sequence[Row],
    reference: dict[str, Any],
    precision: Precision,
) -> dict[str, Any]:
    """Each graph and the whole against torch on real rows; `ok` also needs every greedy answer equal, in fp32."""
    bundle = Bundle(folder)
    asked = samples(graph, node, rows)
    table = []
    for slot, features in zip(graph.slot_tokens(node), reference["features"], strict=True):
        table.append(compare(f"{slot}.onnx", features, bundle.features(slot, [sample[slot] for sample in asked])))
    whole = compare("end to end", reference["logits"], bundle.logits(asked))
    same = [a == b for a, b in zip(reference["ids"], bundle.generate_ids(asked), strict=True)]
    greedy = sum(same) / len(same)
    exact = precision == "fp32"
    ok = all(row["ok"] for row in table) and (not exact or (whole["ok"] and greedy == 1.0))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "precision": precision,
        "samples": len(rows),
        "graphs": [*table, whole],
        "greedy": greedy,
        "bytes": size,
        "ok": ok,
    }
