"""Samples as the model will see them: each input's tensor as a picture, and the filled prompt with its token counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assembler.graph import Graph
from assembler.rows import Row, Rows
from assembler.template import ANSWER


@dataclass(frozen=True)
class Seen:
    """What one input node makes of a sample: a line of words, and where they say more a PNG or bars."""

    node: str
    kind: str
    words: str
    png: bytes = b""
    bars: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Sample:
    """One row: its place, its inputs, the prompt of each node that has one, and its labels and scores."""

    place: str
    inputs: tuple[Seen, ...]
    prompts: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For machines; pictures are only in the page."""
        inputs = {seen.node: {"kind": seen.kind, "is": seen.words, "top": dict(seen.bars)} for seen in self.inputs}
        return {"place": self.place, "inputs": inputs, "prompts": dict(self.prompts), "values": dict(self.values)}


def preview(graph: Graph, rows: Rows, count: int) -> list[Sample]:
    """The samples of `count` rows, evenly chosen.

    Raises:
        AssemblerError: a row cannot be made into a batch; the sentence begins with its place.
    """
    chosen = sorted({i * len(rows) // count for i in range(count)}) if len(rows) else []
    tokenizers = {node: part.load_tokenizer(graph.base) for node, part in _prompted(graph).items()}
    return [_sample(graph, rows[i], rows.place(i), tokenizers) for i in chosen]


def _sample(graph: Graph, row: Row, place: str, tokenizers: Mapping[str, Any]) -> Sample:
    from assembler.batches import Batches
    from assembler.picturing import pictured

    arrays = {key: tensor.numpy()[0] for key, tensor in Batches(graph).samples([row]).items()}
    inputs = []
    for node in graph.samples:
        processor = graph.processor(node)
        words, png, bars = pictured(arrays[node], arrays.get(f"{node}_mask"), processor, graph.base)
        inputs.append(Seen(node, processor.kind, words, png, bars))
    prompts = {node: prompt_pieces(graph, node, row, tokenizer) for node, tokenizer in tokenizers.items()}
    told = {name: row[name] for name, kind in graph.columns().items() if kind in ("label", "score") and name in row}
    return Sample(place, tuple(inputs), prompts, told)


def _prompted(graph: Graph) -> dict[str, Any]:
    """The nodes that fill a prompt."""
    return {node: part for node, part in graph.parts.items() if hasattr(part, "prepared")}


def prompt_pieces(graph: Graph, node: str, row: Mapping[str, Any], tokenizer: Any) -> list[dict[str, Any]]:
    """The prompt of a node, filled from `row`, as its model gets it: a dict of text, slot, tokens, source a piece.

    `source` is `text`, `wire` or `data`; `tokens` is None where it depends on what is not here, and for a wire whose
    samples differ in length it is the most (`most` is then true). What a text gives is counted by itself.
    """
    part: Any = graph.parts[node]
    prompt, slots = part.prepared(node, graph, tokenizer), graph.slot_tokens(node)
    columns = graph.text_columns(node) if node in graph.incoming or graph.document.data else {}
    ragged = {edge.port for edge in graph.incoming[node] if (wire := graph.values[edge.source]) and wire.ragged}

    def piece(text: str | None, slot: str | None, source: str) -> dict[str, Any]:
        tokens = None if text is None else len(tokenizer.encode(text, add_special_tokens=False))
        return {"text": text or "", "slot": slot, "tokens": tokens, "source": source, "most": False}

    def words(column: str) -> str | None:
        found = row.get(column)
        return found if isinstance(found, str) else None

    pieces = []
    for one in prompt.parts:
        if one.slot is not None:
            tokens = {"tokens": slots.get(one.slot), "most": one.slot in ragged}
            pieces.append({"text": "", "slot": one.slot, "source": "wire", **tokens})
        elif one.column is not None:
            pieces.append(piece(words(columns.get(one.column, one.column)), one.column, "data"))
        else:
            pieces.append(piece(one.text, None, "text"))
    return [*pieces, piece(words(graph.column(ANSWER)), ANSWER, "data")]


def print_preview(samples: Sequence[Sample]) -> None:
    """The samples on a terminal, without the pictures."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    for sample in samples:
        table = Table(title=sample.place, title_justify="left", show_header=False, show_edge=False, pad_edge=False)
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for seen in sample.inputs:
            top = ", ".join(f"{name} {value:.3g}" for name, value in seen.bars)
            table.add_row(seen.node, Text(f"{seen.words}{': ' if top else ''}{top}"))
        for node, pieces in sample.prompts.items():
            table.add_row(node, _coloured(pieces))
        for name, value in sample.values.items():
            table.add_row(name, Text(str(value)))
        console.print(table, "")


def _coloured(pieces: Sequence[Mapping[str, Any]]) -> Any:
    from rich.text import Text

    styles = {"text": "dim", "wire": "bold cyan", "data": "bold green"}
    return Text.assemble(*((label(piece), styles[piece["source"]]) for piece in pieces))


def label(piece: Mapping[str, Any]) -> str:
    """A piece of a prompt as words: its text, or its slot, with the tokens that it takes."""
    count = "" if piece["tokens"] is None else f"{'≤ ' if piece['most'] else ''}{piece['tokens']}"
    if piece["slot"] is None:
        return str(piece["text"])
    said = piece["text"] if piece["source"] == "data" else piece["slot"]
    return f"⟨{said}{' · ' if count else ''}{count}⟩"


def write_page(samples: Sequence[Sample], title: str, path: Path) -> None:
    """The samples with their pictures as one HTML file that needs nothing else."""
    import base64
    from html import escape

    from assembler.files import write_text

    def shown(seen: Seen) -> str:
        picture = base64.b64encode(seen.png).decode()
        drawn = f'<img alt="{escape(seen.kind)}" src="data:image/png;base64,{picture}">' if seen.png else ""
        top = max((value for _, value in seen.bars), default=0) or 1
        rows = "".join(
            f'<tr><th>{escape(name)}</th><td><i style="width:{100 * value / top:.0f}%"></i></td>'
            f"<td>{value:.3g}</td></tr>"
            for name, value in seen.bars
        )
        table = f"<table>{rows}</table>" if rows else ""
        return (
            f"<figure>{drawn}{table}<figcaption><b>{escape(seen.node)}</b> {escape(seen.words)}</figcaption></figure>"
        )

    def filled(pieces: Sequence[Mapping[str, Any]]) -> str:
        return "".join(f'<span class="{piece["source"]}">{escape(label(piece))}</span>' for piece in pieces)

    parts = []
    for sample in samples:
        prompts = "".join(f"<p><b>{escape(n)}</b></p><pre>{filled(p)}</pre>" for n, p in sample.prompts.items())
        told = "".join(f"<p><b>{escape(name)}</b> {escape(str(value))}</p>" for name, value in sample.values.items())
        seen = "".join(map(shown, sample.inputs))
        parts.append(f"<section><h2>{escape(sample.place)}</h2><div>{seen}</div>{prompts}{told}</section>")
    heading = escape(title)
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title><style>{STYLE}</style>'
    write_text(path, f"{page}<body><h1>{heading}</h1>{''.join(parts)}</body></html>\n")


STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
section { border-top: 1px solid #8884; padding: .5rem 0 1rem; } div { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; width: min-content; min-width: 12rem; }
figcaption { color: #777; } figcaption b { color: CanvasText; }
img { display: block; height: 10rem; max-width: 56rem; image-rendering: pixelated; border-radius: 6px; }
table { border-spacing: .4rem 0; } th { font-weight: 400; text-align: right; } td:nth-child(2) { width: 12rem; }
i { display: block; height: .7rem; background: #0ca678; border-radius: 0 3px 3px 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; } .text { color: #777; } p { margin: .4rem 0 0; }
.wire { color: #1c7ed6; font-weight: 600; } .data { color: #2b8a3e; font-weight: 600; }
@media (prefers-color-scheme: dark) { .wire { color: #74c0fc; } .data { color: #8ce99a; }
  .text, figcaption { color: #999; } }
"""
