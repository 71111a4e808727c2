"""Export: a trained model as an ONNX bundle with a parity report, or a refusal with node and reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assembler.bundle.decoder import DecoderWriter, decoder_writer
from assembler.bundle.drift import BOUNDS, drift
from assembler.bundle.graphs import ExportRefused, export_decoder, export_embedding, export_graph, quantize
from assembler.bundle.linears import Blocks
from assembler.bundle.manifest import (
    FILES,
    MANIFEST,
    Input,
    Manifest,
    Precision,
    Slot,
    read_manifest,
    write_manifest,
)
from assembler.bundle.parity import compare
from assembler.bundle.runtime import Bundle
from assembler.compile import Assembly
from assembler.errors import AssemblerError
from assembler.evaluate import Row, TorchAnswers
from assembler.files import aside, file_hash, write_text
from assembler.forecast import drawn_sample
from assembler.gguf_blocks import load_blocks
from assembler.graph import Graph
from assembler.ragged import Ragged, parted
from assembler.weights import cached, parse_source

SAMPLES = 8


class Branch(nn.Module):
    """Everything between the inputs and one slot: their tensors (and masks) -> tokens [B, T, D] and their mask.

    Attributes:
        names: what its tensors are called, in order.
    """

    def __init__(self, graph: Graph, assembly: Assembly, source: str) -> None:
        super().__init__()
        around = graph.ancestors(source)
        self.inputs = [node for node in around if graph.is_input(node)]
        self.names = [key for node in self.inputs for key in _keys(graph, node)]
        plan = [step for step in assembly.plan if step.node in around]
        self.source = source
        self.part = Assembly({step.node: assembly.nodes[step.node] for step in plan}, plan, assembly.ragged)

    def forward(self, *tensors: Tensor) -> Any:
        value = self.part.values(dict(zip(self.names, tensors, strict=True)))[self.source]
        return tuple(value) if isinstance(value, Ragged) else value


def _keys(graph: Graph, node: str) -> list[str]:
    """The batch's names of an input node's tensors."""
    return [node, f"{node}_mask"] if node in graph.masked else [node]


def export(
    graph: Graph,
    assembly: Assembly,
    out: Path,
    precision: Precision,
    rows: Sequence[Row],
    say: Callable[[str], None] = lambda text: None,
    max_kl: float | None = None,
) -> dict[str, Any]:
    """Write the bundle at `out` and return its parity report; `rows` are real samples to compare on.

    Adapters are worked into the weights first, so `assembly` is not to be trained on afterwards. Nothing is left at
    `out` when it fails.

    Raises:
        ExportRefused: a node has no faithful graph.
        AssemblerError: `out` exists, or the bundle is further from torch than its precision may be: `max_kl` nats a
            token, where it is given.
    """
    if out.exists():
        raise AssemblerError(f"{out} exists already; choose another folder or remove it")
    node = _language_model(graph)
    _check_targets(graph, node)
    assembly.to("cpu").float().eval()  # a bundle is written from float32, whatever the weights were kept in
    reference = _reference(TorchAnswers(graph, assembly, node), rows[:SAMPLES])
    for name, part in graph.adapters.items():
        part.merge(assembly.nodes[part.host], name)
    out.parent.mkdir(parents=True, exist_ok=True)
    with aside(out) as draft:
        draft.mkdir()
        facts = _write_graphs(graph, assembly, node, draft, precision, say)
        say("manifest and tokenizer")
        _write_manifest(graph, node, draft, precision, facts)
        say("parity")
        report = parity(graph, assembly, node, draft, rows[:SAMPLES], reference, precision, max_kl)
        if not report["ok"]:
            raise AssemblerError(_refusal(report))
        write_text(draft / "parity.json", json.dumps(report, indent=2) + "\n")
        seal(draft)
    return report


def _refusal(report: dict[str, Any]) -> str:
    """Why a bundle is not written."""
    worst, moved = max(report["graphs"], key=lambda row: row["relative"]), report["drift"]
    if moved["kl"] > moved["bound"]:
        way_out = "take int8, or allow more with --max-kl" if report["precision"] != "fp32" else "report this"
        return (
            f"the bundle drifts {moved['kl']:.2g} nats a token from torch, and {report['precision']} may drift "
            f"{moved['bound']:.2g}; {way_out}; nothing was written"
        )
    return (
        f"the bundle is not what torch computes: {worst['graph']} is {worst['relative']:.1e} off, relative, "
        f"greedy answers agree in {report['greedy']:.0%}; nothing was written"
    )


def _language_model(graph: Graph) -> str:
    lms = [node for node in graph.objectives if "input_ids" in graph.parts[node].extras]
    if len(lms) != 1:
        first = graph.objectives[0] if graph.objectives else "the graph"
        raise ExportRefused(f"{first}: a bundle answers with one causal LM, and this graph has {len(lms)}")
    return lms[0]


def _feeder(graph: Graph, node: str, slot: str) -> str:
    """The node that is wired to a slot."""
    return next(edge.source for edge in graph.incoming[node] if edge.port == slot)


def _check_targets(graph: Graph, node: str) -> None:
    """Nothing on the way to a slot needs more than the inputs when it serves, and no adapter is without a graph."""
    for name, adapter in graph.adapters.items():
        if adapter.exports:
            raise ExportRefused(f"{name}: {adapter.type} has no ONNX graph: {adapter.exports}")
        if adapter.host == node and graph.incoming[name]:
            raise ExportRefused(
                f"{name}: {adapter.type} reads {graph.incoming[name][0].source} inside the language model, and the "
                "decoder's graph has no input for it"
            )
    for slot in graph.slot_tokens(node):
        for name in graph.ancestors(_feeder(graph, node, slot)):
            part = graph.parts[name]
            if part.objective or set(part.extras) - set(part.targets):
                raise ExportRefused(f"{name}: {part.type} reads the data itself, and a slot's graph takes only inputs")


def _write_graphs(
    graph: Graph, assembly: Assembly, node: str, folder: Path, precision: Precision, say: Callable[[str], None]
) -> dict[str, str]:
    lm: Any = assembly.nodes[node].lm  # type: ignore[union-attr]
    for slot in graph.slot_tokens(node):
        say(f"graph of {slot}")
        branch = Branch(graph, assembly, _feeder(graph, node, slot))
        sample = {key: x for name in branch.inputs for key, x in drawn_sample(graph, name, 2).items()}
        outputs = ["features", "mask"] if branch.source in graph.masked else ["features"]
        axes = {name: {0: "batch"} for name in branch.names}
        arguments = tuple(sample[name] for name in branch.names)
        export_graph(branch, arguments, folder / f"{slot}.onnx", branch.names, outputs, axes)
    return _write_lm(graph, lm, node, folder, precision, say)


def _write_lm(
    graph: Graph, lm: Any, node: str, folder: Path, precision: Precision, say: Callable[[str], None]
) -> dict[str, str]:
    """Embedding and decoder, written directly where the architecture is known, and what the manifest says of them."""
    say("decoder and embedding")
    writer = decoder_writer(lm, precision, lambda: carried(graph, node))
    if isinstance(writer, DecoderWriter):
        writer.write(folder)
        return {"cache": "in_place", "origin": "written: " + writer.note}
    if precision == "int8_dynamic":
        raise ExportRefused(f"{node}: int8_dynamic is for decoders that are written directly; {writer}; take int8")
    export_embedding(lm.get_input_embeddings(), folder / "embedding.onnx")
    if precision == "fp32":
        export_decoder(lm, folder / "decoder.onnx")
    else:
        inner = folder / "fp32"
        inner.mkdir()
        export_decoder(lm, inner / "decoder.onnx")
        say(f"decoder to {precision}")
        quantize(inner / "decoder.onnx", folder / "decoder.onnx", precision, [])
        shutil.rmtree(inner)
    return {"cache": "grows", "origin": f"traced: {writer}"}


def carried(graph: Graph, node: str) -> dict[str, Blocks]:
    """The matrices that a GGUF source of this node holds in blocks; none where its weights are of another kind."""
    source = graph.parts[node].weight_sources().get("weights")
    path = cached(parse_source(source), graph.base) if source else None
    return load_blocks(path) if path is not None and path.suffix == ".gguf" else {}


def _write_manifest(graph: Graph, node: str, folder: Path, precision: Precision, facts: dict[str, Any]) -> None:
    part: Any = graph.parts[node]
    tokenizer = part.load_tokenizer(graph.base)
    prompt = part.prepared(node, graph, tokenizer)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write_text(folder / "spec.yaml", graph.spec.dump())
    slots, inputs = {}, {}
    for slot, tokens in graph.slot_tokens(node).items():
        source = _feeder(graph, node, slot)
        names = [name for name in graph.ancestors(source) if graph.is_input(name)]
        slots[slot] = Slot(graph=f"{slot}.onnx", inputs=names, tokens=tokens, ragged=source in graph.masked)
        inputs.update({name: _input(graph, name, folder) for name in names})
    manifest = Manifest(
        name=graph.document.name,
        precision=precision,
        inputs=inputs,
        slots=slots,
        prompt=list(prompt.parts),
        bos=prompt.bos,
        stop=list(prompt.stop),
        max_new_tokens=part.max_new_tokens,
        vocab_size=graph.vocabulary(node),
        **facts,
        files={path.name: file_hash(path) for path in sorted(folder.iterdir())},
    )
    write_manifest(folder, manifest)


def seal(folder: Path) -> None:
    """Take the files that came after the manifest into it."""
    names = [path.name for path in sorted(folder.iterdir()) if path.name != MANIFEST]
    files = {name: file_hash(folder / name) for name in names}
    write_manifest(folder, read_manifest(folder).model_copy(update={"files": files}))


def _input(graph: Graph, name: str, folder: Path) -> Input:
    """An input node as the manifest describes it; the files that its processor reads are copied into the bundle."""
    processor: Any = graph.processor(name)
    moved = {}
    for field in FILES:
        file = getattr(processor, field, None)
        if file is not None:
            moved[field] = f"{name}.{field}{Path(file).suffix}"
            shutil.copyfile(graph.base / file, folder / moved[field])
    return Input(processor=processor.model_copy(update=moved), masked=name in graph.masked)


def samples(graph: Graph, node: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Data rows as a bundle's samples: what each input node reads, and a text a column of the prompt."""
    columns = graph.text_columns(node)
    for slot in graph.slot_tokens(node):
        around = graph.ancestors(_feeder(graph, node, slot))
        columns.update({name: graph.column(name) for name in around if graph.is_input(name)})
    return [{name: row[column] for name, column in columns.items()} for row in rows]


def _reference(torch_answers: TorchAnswers, rows: Sequence[Row]) -> dict[str, Any]:
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
    assembly: Assembly,
    node: str,
    folder: Path,
    rows: Sequence[Row],
    reference: dict[str, Any],
    precision: Precision,
    max_kl: float | None = None,
) -> dict[str, Any]:
    """Each graph and the whole against torch on real rows.

    `ok` needs every encoder's graph within its limit and the drift within its bound, by default that of the precision;
    in fp32 also the whole within its limit and every greedy answer equal.
    """
    bundle = Bundle(folder)
    asked = samples(graph, node, rows)
    table = []
    for slot, features in zip(graph.slot_tokens(node), reference["features"], strict=True):
        given, real = bundle.features(slot, asked)
        wanted, mask = parted(features)
        if mask is not None:
            assert real is not None
            if not (mask.cpu().numpy() == real).all():
                raise AssemblerError(f"{slot}.onnx marks other tokens as real than torch does; nothing was written")
            wanted, given = wanted[mask], given[real]
        table.append(compare(f"{slot}.onnx", wanted, given))
    whole = compare("end to end", reference["logits"], bundle.logits(asked))
    same = [a == b for a, b in zip(reference["ids"], bundle.generate_ids(asked), strict=True)]
    greedy = sum(same) / len(same)
    exact = precision == "fp32"
    moved = drift(reference["answer_logits"], bundle.told(asked, reference["answers"]), reference["answers"])
    bound = BOUNDS[precision] if max_kl is None else max_kl
    ok = all(row["ok"] for row in table) and moved["kl"] <= bound and (not exact or (whole["ok"] and greedy == 1.0))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "precision": precision,
        "samples": len(rows),
        "graphs": [*table, whole],
        "greedy": greedy,
        "drift": {**moved, "bound": bound},
        "bytes": size,
        "ok": ok,
    }
