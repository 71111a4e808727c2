"""Export: a trained model as an ONNX bundle with a parity report, or a refusal with node and reason."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assembler.adapters.book import adapters_of
from assembler.apart import Apart, take_apart
from assembler.bundle.architecture import Architecture, architecture_of
from assembler.bundle.decoder import LONGEST, PROMPTS, DecoderWriter, Reach, decoder_writer
from assembler.bundle.drift import BOUNDS
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
from assembler.bundle.precisions import Precisions
from assembler.bundle.smoothing import Peaks
from assembler.bundle.switching import SUFFIX, write_adapter
from assembler.compile import Assembly
from assembler.errors import AssemblerError
from assembler.evaluate import Row, TorchAnswers
from assembler.exportable import feeder, language_model, onnx_problems
from assembler.files import aside, clear_drafts, file_hash, room, write_text
from assembler.forecast import drawn_sample
from assembler.gguf_blocks import load_blocks
from assembler.graph import Graph
from assembler.parity import comparable, parity, reference_of
from assembler.peaks import peaks_of, reach_of
from assembler.ragged import Ragged
from assembler.weights import cached, parse_source

SAMPLES = 8
OWN = {"embedding.onnx", "decoder.onnx", PROMPTS}
"""Graphs that are no slot's, whatever a slot is called."""
RUNNER = Path(__file__).with_name("bundle") / "run_bundle.py"
"""Goes into each bundle: asks it with onnxruntime, numpy and tokenizers alone."""


class Branch(nn.Module):
    """Everything between the inputs and some nodes: their tensors (and masks) -> each one's tokens [B, T, D] and mask.

    Attributes:
        names: what its tensors are called, in order.
    """

    def __init__(self, graph: Graph, assembly: Assembly, *sources: str) -> None:
        super().__init__()
        around = {node for source in sources for node in graph.ancestors(source)}
        self.inputs = [node for node in graph.order if node in around and graph.is_input(node)]
        self.names = [key for node in self.inputs for key in _keys(graph, node)]
        plan = [step for step in assembly.plan if step.node in around]
        self.sources = sources
        self.part = Assembly({step.node: assembly.nodes[step.node] for step in plan}, plan, assembly.ragged)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        values = self.part.values(dict(zip(self.names, tensors, strict=True)))
        found = [values[source] for source in self.sources]
        return tuple(x for value in found for x in (value if isinstance(value, Ragged) else (value,)))


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
    switch: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the bundle at `out` and return its parity report; `rows` are real samples to compare on.

    A `precision` in one word is the decoder's. The LoRAs `switch` stay apart from its weights, so that each answer has
    one of them or none.

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
    answers = TorchAnswers(graph, assembly, node)
    apart = take_apart(assembly, node, switch, lambda: reference_of(answers, rows[:SAMPLES]))
    with peaks_of(assembly.nodes[node]) as peaks:
        reference = reference_of(answers, rows[:SAMPLES])
    reach = _reach(node, answers, rows[:SAMPLES], precisions)
    _merge(graph, assembly)
    out.parent.mkdir(parents=True, exist_ok=True)
    clear_drafts(out)
    with room(out), aside(out) as draft:
        draft.mkdir()
        facts = _write_graphs(graph, assembly, node, draft, precisions, say, apart, peaks, reach)
        say("manifest and tokenizer")
        _write_manifest(graph, node, draft, precisions, facts)
        _write_genai(assembly.nodes[node], draft)
        say("parity")
        with comparable(draft) as folder:
            report = parity(graph, node, folder, rows[:SAMPLES], reference, precisions, max_kl, apart)
        if not report["ok"]:
            raise AssemblerError(_refusal(report))
        write_text(draft / "parity.json", json.dumps(report, indent=2) + "\n")
        write_page(draft / "parity.html", report, read_manifest(draft))
        seal(draft)
    return report


def _reach(node: str, answers: TorchAnswers, rows: Sequence[Row], precisions: Precisions) -> list[Reach] | None:
    """How far keys and values reach in each layer, where they are to be kept in 8 bits."""
    if precisions.cache is None:
        return None
    lm: Any = answers.assembly.nodes[node].lm
    shape = architecture_of(lm.config.get_text_config())
    if isinstance(shape, str):
        raise ExportRefused(f"{node}: only decoders that are written directly keep a cache in 8 bits; {shape}")
    if precisions.decoder in ("fp16", "bf16"):
        found = precisions.decoder
        raise ExportRefused(f"{node}: a cache of 8 bits is for decoders that compute in float32, not {found}")
    return reach_of(answers, rows, shape.rotary)


def _merge(graph: Graph, assembly: Assembly) -> None:
    """Work adapters into the weights where they stand by themselves; what combines them is exported as it is."""
    for name, part in graph.adapters.items():
        host = assembly.nodes[part.host]
        book = adapters_of(host)
        if book is not None and book.outermost(name):
            part.merge(host, name)


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
    graph: Graph,
    assembly: Assembly,
    node: str,
    folder: Path,
    precisions: Precisions,
    say: Callable[[str], None],
    apart: Sequence[Apart],
    peaks: Peaks,
    reach: Sequence[Reach] | None,
) -> dict[str, Any]:
    lm: Any = assembly.nodes[node].lm  # type: ignore[union-attr]
    for slots in shared(graph, node, precisions):
        say(f"graph of {' and '.join(slots)}")
        sources = {slot: feeder(graph, node, slot) for slot in slots}
        branch = Branch(graph, assembly, *sources.values())
        sample = {key: x for name in branch.inputs for key, x in drawn_sample(graph, name, 2).items()}
        outputs = [name for slot in slots for name in _outputs(slots, slot, sources[slot] in graph.masked)]
        axes = {name: {0: "batch"} for name in branch.names}
        arguments = tuple(sample[name] for name in branch.names)

        def trace(path: Path, branch=branch, arguments=arguments, outputs=outputs, axes=axes) -> None:
            export_graph(branch, arguments, path, branch.names, outputs, axes)

        _traced(trace, folder / graph_file(slots), precisions.slots.get(slots[0], "fp32"))
    say("decoder and embedding")
    return _write_lm(graph, lm, node, folder, precisions.decoder, apart, peaks, reach)


def shared(graph: Graph, node: str, precisions: Precisions) -> list[list[str]]:
    """The slots of `node` by the graph that fills them: one for all that share a part, so that it is held and run once.

    They also read the same inputs and have one precision.
    """
    slots = list(graph.slot_tokens(node))
    around = {slot: set(graph.ancestors(feeder(graph, node, slot))) for slot in slots}
    inputs = {slot: {name for name in around[slot] if graph.is_input(name)} for slot in slots}

    def alike(one: str, other: str) -> bool:
        same = inputs[one] == inputs[other] and precisions.slots.get(one) == precisions.slots.get(other)
        return same and bool(around[one] & around[other] - inputs[one])

    groups: list[list[str]] = []
    for slot in slots:
        near = [group for group in groups if any(alike(slot, other) for other in group)]
        groups = [group for group in groups if group not in near]
        groups.append([*(other for group in near for other in group), slot])
    return groups


def graph_file(slots: Sequence[str]) -> str:
    """What the graph that fills some slots is called, which is not what the bundle's other graphs are."""
    stem = "-".join(slots) if len(slots) < 4 else f"{slots[0]}-and-{len(slots) - 1}-more"
    return f"{stem}-slot.onnx" if f"{stem}.onnx" in OWN else f"{stem}.onnx"


def _outputs(slots: Sequence[str], slot: str, ragged: bool) -> tuple[str, ...]:
    """The outputs for a slot of the graph that fills some."""
    names = ("features", "mask") if len(slots) == 1 else (f"{slot}_features", f"{slot}_mask")
    return names if ragged else names[:1]


def _write_lm(
    graph: Graph,
    lm: Any,
    node: str,
    folder: Path,
    precision: Precision,
    apart: Sequence[Apart],
    peaks: Peaks,
    reach: Sequence[Reach] | None,
) -> dict[str, Any]:
    """Embedding and decoder, written directly where the architecture is known, and what the manifest says of them."""
    switched = {path for adapter in apart for path in adapter.factors}
    writer = decoder_writer(lm, precision, lambda: carried(graph, node), switched, peaks, reach)
    if isinstance(writer, DecoderWriter):
        prompts = writer.write(folder)
        files = {adapter.name: f"{adapter.name}{SUFFIX}" for adapter in apart}
        for adapter in apart:
            write_adapter(folder / files[adapter.name], adapter.factors, writer.real)
        held = None if reach is None else "int8"
        return {
            "cache": "in_place",
            "held": held,
            "positions": min(writer.shape.positions, LONGEST),
            "prompts": prompts,
            "origin": "written: " + writer.note,
            "adapters": files,
        }
    if reach is not None:
        raise ExportRefused(f"{node}: only decoders that are written directly keep a cache in 8 bits; {writer}")
    if apart:
        raise ExportRefused(f"{node}: only decoders that are written directly switch adapters; {writer}")
    if precision in ("int8_dynamic", "fp16", "bf16"):
        raise ExportRefused(f"{node}: {precision} is for decoders that are written directly; {writer}; take int8")
    export_embedding(lm.get_input_embeddings(), folder / "embedding.onnx")
    _traced(lambda path: export_decoder(lm, path), folder / "decoder.onnx", precision)
    positions = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    return {"cache": "grows", "positions": positions, "origin": f"traced: {writer}"}


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
    write_text(folder / "tokenizer.json", tokenizer.backend_tokenizer.to_str(pretty=True))
    write_text(folder / "spec.yaml", graph.spec.dump())
    shutil.copyfile(RUNNER, folder / RUNNER.name)
    slots, inputs = {}, {}
    together = {slot: group for group in shared(graph, node, precisions) for slot in group}
    for slot, tokens in graph.slot_tokens(node).items():
        source, group = feeder(graph, node, slot), together[slot]
        names = [name for name in graph.ancestors(source) if graph.is_input(name)]
        ragged = source in graph.masked
        slots[slot] = Slot(
            graph=graph_file(group),
            inputs=names,
            tokens=tokens,
            ragged=ragged,
            precision=precisions.slots.get(slot, "fp32"),
            outputs=None if len(group) == 1 else _outputs(group, slot, ragged),
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
    if manifest.cache == "in_place" and manifest.held is None and manifest.stop and isinstance(shape, Architecture):
        write_genai(folder, shape, min(shape.positions, LONGEST), manifest)


def seal(folder: Path) -> None:
    """Take the files that came after the manifest into it."""
    manifest = read_manifest(folder)
    late = [path for path in sorted(folder.iterdir()) if path.name not in {MANIFEST, *manifest.files}]
    files = {**manifest.files, **{path.name: file_hash(path) for path in late}}
    write_manifest(folder, manifest.model_copy(update={"files": dict(sorted(files.items()))}))


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
