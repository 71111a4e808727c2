"""Export: a trained model as an ONNX bundle with a parity report, or a refusal with node and reason."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from assembler.bundle.architecture import Architecture, architecture_of
from assembler.bundle.decoder import LONGEST, DecoderWriter, decoder_writer
from assembler.bundle.drift import BOUNDS, drift
from assembler.bundle.genai import write_genai
from assembler.bundle.graphs import ExportRefused, export_decoder, export_embedding, export_graph, halve, quantize
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
from assembler.bundle.page import write_page
from assembler.bundle.parity import LIMITS, compare
from assembler.bundle.precisions import Precisions
from assembler.bundle.runtime import Bundle
from assembler.compile import Assembly
from assembler.errors import AssemblerError
from assembler.evaluate import Row, TorchAnswers
from assembler.exportable import feeder, language_model, onnx_problems
from assembler.files import aside, clear_drafts, file_hash, room, write_text
from assembler.forecast import drawn_sample
from assembler.gguf_blocks import load_blocks
from assembler.graph import Graph
from assembler.ragged import Ragged, parted
from assembler.weights import cached, parse_source

SAMPLES, STEPS = 8, 16
RUNNER = Path(__file__).with_name("bundle") / "run_bundle.py"
"""Goes into each bundle: asks it with onnxruntime, numpy and tokenizers alone."""


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
    precision: Precision | Precisions,
    rows: Sequence[Row],
    say: Callable[[str], None] = lambda text: None,
    max_kl: float | None = None,
) -> dict[str, Any]:
    """Write the bundle at `out` and return its parity report; `rows` are real samples to compare on.

    A `precision` in one word is the decoder's.

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
    precisions = precision if isinstance(precision, Precisions) else Precisions(precision)
    assembly.to("cpu").float().eval()  # a bundle is written from float32, whatever the weights were kept in
    reference = _reference(TorchAnswers(graph, assembly, node), rows[:SAMPLES])
    for name, part in graph.adapters.items():
        part.merge(assembly.nodes[part.host], name)
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_drafts(out)
    with room(out), aside(out) as draft:
        draft.mkdir()
        facts = _write_graphs(graph, assembly, node, draft, precisions, say)
        say("manifest and tokenizer")
        _write_manifest(graph, node, draft, precisions, facts)
        _write_genai(assembly.nodes[node], draft)
        say("parity")
        report = parity(graph, node, draft, rows[:SAMPLES], reference, precisions, max_kl)
        if not report["ok"]:
            raise AssemblerError(_refusal(report))
        write_text(draft / "parity.json", json.dumps(report, indent=2) + "\n")
        write_page(draft / "parity.html", report, read_manifest(draft))
        seal(draft)
    return report


def _refusal(report: dict[str, Any]) -> str:
    """Why a bundle is not written."""
    worst, moved = max(report["graphs"], key=lambda row: row["relative"]), report["drift"]
    if moved["kl"] > moved["bound"]:
        way_out = "take int8, or allow more with --max-kl" if moved["bound"] > BOUNDS["fp32"] else "report this"
        return (
            f"the bundle drifts {moved['kl']:.2g} nats a token from torch, and {report['precision']} may drift "
            f"{moved['bound']:.2g}; {way_out}; nothing was written"
        )
    return (
        f"the bundle is not what torch computes: {worst['graph']} is {worst['relative']:.1e} off, relative, "
        f"greedy answers agree in {report['greedy']:.0%}; nothing was written"
    )


def _language_model(graph: Graph) -> str:
    """The node that answers, of a graph that can be exported."""
    problems, node = onnx_problems(graph), language_model(graph)
    if problems or node is None:
        raise ExportRefused(problems[0].message)
    return node


def _write_graphs(
    graph: Graph, assembly: Assembly, node: str, folder: Path, precisions: Precisions, say: Callable[[str], None]
) -> dict[str, str]:
    lm: Any = assembly.nodes[node].lm  # type: ignore[union-attr]
    for slot in graph.slot_tokens(node):
        say(f"graph of {slot}")
        branch = Branch(graph, assembly, feeder(graph, node, slot))
        sample = {key: x for name in branch.inputs for key, x in drawn_sample(graph, name, 2).items()}
        outputs = ["features", "mask"] if branch.source in graph.masked else ["features"]
        axes = {name: {0: "batch"} for name in branch.names}
        arguments = tuple(sample[name] for name in branch.names)

        def trace(path: Path, branch=branch, arguments=arguments, outputs=outputs, axes=axes) -> None:
            export_graph(branch, arguments, path, branch.names, outputs, axes)

        _traced(trace, folder / f"{slot}.onnx", precisions.slots.get(slot, "fp32"))
    return _write_lm(graph, lm, node, folder, precisions.decoder, say)


def _write_lm(
    graph: Graph, lm: Any, node: str, folder: Path, precision: Precision, say: Callable[[str], None]
) -> dict[str, str]:
    """Embedding and decoder, written directly where the architecture is known, and what the manifest says of them."""
    say("decoder and embedding")
    writer = decoder_writer(lm, precision, lambda: carried(graph, node))
    if isinstance(writer, DecoderWriter):
        writer.write(folder)
        return {"cache": "in_place", "origin": "written: " + writer.note}
    if precision in ("int8_dynamic", "fp16"):
        raise ExportRefused(f"{node}: {precision} is for decoders that are written directly; {writer}; take int8")
    export_embedding(lm.get_input_embeddings(), folder / "embedding.onnx")
    _traced(lambda path: export_decoder(lm, path), folder / "decoder.onnx", precision)
    return {"cache": "grows", "origin": f"traced: {writer}"}


def _traced(trace: Callable[[Path], None], path: Path, precision: Precision) -> None:
    """A traced graph at `path` in a precision."""
    if precision == "fp32":
        trace(path)
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as inner:
        draft = Path(inner) / path.name
        trace(draft)
        if precision == "fp16":
            halve(draft, path)
        else:
            quantize(draft, path, precision, [])


def carried(graph: Graph, node: str) -> dict[str, Blocks]:
    """The matrices that a GGUF source of this node holds in blocks; none where its weights are of another kind."""
    source = graph.parts[node].weight_sources().get("weights")
    path = cached(parse_source(source), graph.base) if source else None
    return load_blocks(path) if path is not None and path.suffix == ".gguf" else {}


def _write_manifest(graph: Graph, node: str, folder: Path, precisions: Precisions, facts: dict[str, Any]) -> None:
    part: Any = graph.parts[node]
    tokenizer = part.load_tokenizer(graph.base)
    prompt = part.prepared(node, graph, tokenizer)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write_text(folder / "spec.yaml", graph.spec.dump())
    shutil.copyfile(RUNNER, folder / RUNNER.name)
    slots, inputs = {}, {}
    for slot, tokens in graph.slot_tokens(node).items():
        source = feeder(graph, node, slot)
        names = [name for name in graph.ancestors(source) if graph.is_input(name)]
        slots[slot] = Slot(
            graph=f"{slot}.onnx",
            inputs=names,
            tokens=tokens,
            ragged=source in graph.masked,
            precision=precisions.slots.get(slot, "fp32"),
        )
        inputs.update({name: _input(graph, name, folder) for name in names})
    manifest = Manifest(
        name=graph.document.name,
        precision=precisions.decoder,
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


def _write_genai(prompted: Any, folder: Path) -> None:
    """What onnxruntime-genai needs to run the decoder, where it is one that it can run: with its cache in place."""
    manifest, config = read_manifest(folder), prompted.lm.config.get_text_config()
    shape = architecture_of(config)
    if manifest.cache == "in_place" and manifest.stop and isinstance(shape, Architecture):
        write_genai(folder, shape, min(config.max_position_embeddings, LONGEST), manifest)


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
        around = graph.ancestors(feeder(graph, node, slot))
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
    node: str,
    folder: Path,
    rows: Sequence[Row],
    reference: dict[str, Any],
    precisions: Precisions,
    max_kl: float | None = None,
) -> dict[str, Any]:
    """Each graph and the whole against torch on real rows, and how fast it is.

    `ok` needs every slot's graph within its limit and the drift within its bound, by default that of the widest of the
    precisions; in fp32 also the whole within its limit and every greedy answer equal.
    """
    started = time.perf_counter()
    bundle = Bundle(folder)
    loaded = time.perf_counter() - started
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
        table.append(compare(f"{slot}.onnx", wanted, given, LIMITS[precisions.slots.get(slot, "fp32")]))
    whole = compare("end to end", reference["logits"], bundle.logits(asked))
    same = [a == b for a, b in zip(reference["ids"], bundle.generate_ids(asked), strict=True)]
    greedy = sum(same) / len(same)
    exact = precisions.all == {"fp32"}
    moved = drift(reference["answer_logits"], bundle.told(asked, reference["answers"]), reference["answers"])
    bound = max(BOUNDS[precision] for precision in precisions.all) if max_kl is None else max_kl
    ok = all(row["ok"] for row in table) and moved["kl"] <= bound and (not exact or (whole["ok"] and greedy == 1.0))
    return {
        "precision": str(precisions),
        "samples": len(rows),
        "graphs": [*table, whole],
        "greedy": greedy,
        "drift": {**moved, "bound": bound},
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "load_seconds": loaded,
        "speed": speed(bundle, asked[0]),
        "ok": ok,
    }


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
