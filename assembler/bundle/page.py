"""The parity report of a bundle as a page of its own: no script, no font, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from assembler.bundle.manifest import Manifest
from assembler.files import write_text

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d9e0, #3a4150); --soft: light-dark(#5a6372, #a3acbb); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fff, #14171d); color: light-dark(#1b1f27, #e6e9ef); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
td { font-variant-numeric: tabular-nums; } th { font-weight: 600; } p { color: var(--soft); }
"""


def write_page(path: Path, report: dict[str, Any], manifest: Manifest) -> None:
    """Write the report of `assembler.parity.parity` at `path`."""
    moved = report["drift"]
    perplexity = moved["perplexity"]
    drifts = [
        ("KL divergence, nats a token", f"{moved['kl']:.1e}", f"at most {moved['bound']:g}"),
        ("likeliest token the same", f"{moved['top1']:.1%}", f"of {moved['tokens']} answer tokens"),
        ("perplexity", f"{perplexity['torch']:.3f} → {perplexity['bundle']:.3f}", "torch → bundle"),
        ("greedy answers equal", f"{report['greedy']:.0%}", f"of {report['samples']} held-out samples"),
    ]
    costs = [
        ("size", f"{report['bytes'] / 2**20:,.1f} MiB", "all files"),
        ("load", f"{report['load_seconds']:.2f} s", "graphs and hashes"),
        ("prompt", f"{report['speed']['prefill']:,.0f} tokens/s", "one row, on the computer that exported"),
        ("answer", f"{report['speed']['decode']:,.0f} tokens/s", "one row, on the computer that exported"),
    ]
    graphs = [
        (row["graph"], f"{row['max_abs']:.1e}", f"{row['relative']:.1e}", _mark(row["ok"])) for row in report["graphs"]
    ]
    name = escape(manifest.name)
    body = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}: parity</title><style>{STYLE}</style></head>
<body>
<h1>{name}: ONNX beside torch</h1>
<p>Precision: {escape(report["precision"])}. The decoder was {escape(manifest.origin)}. {escape(report["note"])}</p>
<h2>Graphs</h2>
{_table(("graph", "largest difference", "relative", "within its limit"), graphs)}
<h2>Drift on held-out answers</h2>
{_table(("", "measured", ""), drifts)}
<h2>Size and speed</h2>
{_table(("", "measured", ""), costs)}
</body>
</html>
"""
    write_text(path, body)


def _mark(ok: bool) -> str:
    return "yes" if ok else "no: what it costs is in the drift"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(heads, "th") + "".join(line(row, "td") for row in rows) + "</table>"
