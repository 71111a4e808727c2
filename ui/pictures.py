"""A small picture of a spec's graph as SVG: nodes in columns by depth, coloured by family, wires between."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from xml.sax.saxutils import escape

from assembler.registry import family
from assembler.spec import Document, parse_edge, read

COLOURS = {
    "input": "#0ca678",
    "encoder": "#3b82f6",
    "projector": "#8b5cf6",
    "backbone": "#e8590c",
    "head": "#d6336c",
    "objective": "#d6336c",
}
WIDTH, NODE, GAP = 480, (100, 32), 14
LOWEST, HIGHEST = 132, 300
LETTERS = 13


@lru_cache(maxsize=256)
def picture(path: Path, changed: int) -> str | None:
    """The picture of a spec; `changed` is when the file was. None when it cannot be read."""
    document = read(path).document
    return svg(document) if document and document.nodes else None


def svg(document: Document) -> str:
    """The graph as SVG; names are text in it and nothing else."""
    places, height = _places(document)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">']
    for edge in filter(None, map(parse_edge, document.edges)):
        if edge.source in places and edge.target in places:
            (x, y), (u, v) = places[edge.source], places[edge.target]
            x, u = x + NODE[0] / 2, u - NODE[0] / 2
            bend = (u - x) / 2
            path = f"M{x:.0f} {y:.0f}C{x + bend:.0f} {y:.0f} {u - bend:.0f} {v:.0f} {u:.0f} {v:.0f}"
            parts.append(f'<path d="{path}" fill="none" stroke="#868e96" stroke-width="1.5"/>')
    hosts = {str(adapter.get("host")) for adapter in document.adapters.values()}
    for name, (x, y) in places.items():
        parts.append(_node(name, str(document.nodes[name].get("type", "")), x, y, name in hosts))
    return "".join([*parts, "</svg>"])


def _node(name: str, kind: str, x: float, y: float, tuned: bool) -> str:
    colour = COLOURS.get(family(kind), "#868e96")
    left, top = x - NODE[0] / 2, y - NODE[1] / 2
    text = name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
    chip = f'<circle cx="{left + NODE[0]:.0f}" cy="{top:.0f}" r="5" fill="#f59f00"/>' if tuned else ""
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{NODE[0]}" height="{NODE[1]}" rx="7" fill="{colour}"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle" font-size="12" fill="#fff">{escape(text)}</text>{chip}'
    )


def _places(document: Document) -> tuple[dict[str, tuple[float, float]], int]:
    """The middle of each node, and the height of all; a node's column is the longest way to it from the inputs."""
    depth = dict.fromkeys(document.nodes, 0)
    edges = [edge for edge in map(parse_edge, document.edges) if edge and {edge.source, edge.target} <= depth.keys()]
    for _ in range(min(len(depth), 64)):
        for edge in edges:
            depth[edge.target] = min(max(depth[edge.target], depth[edge.source] + 1), len(depth))
    columns = [[name for name in depth if depth[name] == level] for level in sorted(set(depth.values()))]
    pitch = (WIDTH - NODE[0] - 8) / max(1, len(columns) - 1)
    tallest = max(map(len, columns))
    height = min(max(LOWEST, tallest * (NODE[1] + GAP) + GAP), HIGHEST)
    places = {}
    for i, names in enumerate(columns):
        x = WIDTH / 2 if len(columns) == 1 else NODE[0] / 2 + 4 + i * pitch
        step = min(NODE[1] + GAP, height / len(names))
        for j, name in enumerate(names):
            places[name] = (x, height / 2 + (j - (len(names) - 1) / 2) * step)
    return places, height
