"""Every spec of the gallery on the canvas: laid out so that it can be read, all of it in view, and with no problem that
`assembler validate` does not have. One page takes them all, each dropped on it as a file."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from assembler.check import check
from assembler.spec import read
from tests.ui.canvas import Canvas
from tests.ui.conftest import ROOT, Server

GALLERY = sorted((ROOT / "exports" / "gallery").glob("*.yaml"))
LOOK = """() => {
  const roots = [...document.querySelectorAll("*")].flatMap(e => e.shadowRoot ? [e.shadowRoot] : []);
  const editor = roots.map(root => root.querySelector(".editor")).find(Boolean);
  const boxes = what => Object.fromEntries([...editor.querySelectorAll(what)].map(e => {
    const { left, top, right, bottom } = e.getBoundingClientRect();
    return [e.dataset.id ?? e.dataset.wire ?? what, { left, top, right, bottom }];
  }));
  const flow = editor.querySelector(".react-flow__viewport");
  return {
    nodes: boxes(".react-flow__node-part"), labels: boxes(".wire-label"), canvas: boxes(".canvas")[".canvas"],
    zoom: new DOMMatrix(getComputedStyle(flow).transform).a,
    problems: [...editor.querySelectorAll(".problems .go")].map(e => e.textContent),
  };
}"""


def apart(a: dict[str, float], b: dict[str, float], slack: float = 1) -> bool:
    """Whether two boxes have no area in common."""
    beside = a["right"] <= b["left"] + slack or b["right"] <= a["left"] + slack
    return beside or a["bottom"] <= b["top"] + slack or b["bottom"] <= a["top"] + slack


def opened(canvas: Canvas, path: Path) -> dict:
    """How a spec looks that was dropped on the canvas, once it stands still."""
    canvas.drop_file(path.read_text(), path.name)
    canvas.expect_count("nodes", len(read(path).tree["nodes"]))
    canvas.checked()
    before: dict = {}
    for _ in range(40):
        canvas.page.wait_for_timeout(30)
        now = canvas.page.evaluate(LOOK)
        if now == before and len(now["nodes"]) == canvas.count("nodes"):
            return now
        before = now
    return before


def unreadable(look: dict) -> list[str]:
    """What hinders reading."""
    nodes, canvas = look["nodes"], look["canvas"]
    found = [f"{a} lies on {b}" for a, b in combinations(nodes, 2) if not apart(nodes[a], nodes[b])]
    for name, box in nodes.items():
        inside = canvas["left"] <= box["left"] and box["right"] <= canvas["right"]
        if not (inside and canvas["top"] <= box["top"] and box["bottom"] <= canvas["bottom"]):
            found.append(f"{name} is out of view")
    for wire, box in look["labels"].items():
        found += [f"{name} covers the label of {wire}" for name in nodes if not apart(nodes[name], box, 3)]
    found += [
        f"labels of {a} and {b}"
        for a, b in combinations(look["labels"], 2)
        if not apart(*map(look["labels"].get, (a, b)), 3)
    ]
    if look["zoom"] < 0.4:
        found.append(f"it is so large that only names can be read: {look['zoom']:.2f}")
    return found


@pytest.fixture
def canvas(page: Page, server: Server) -> Canvas:
    return Canvas(page, f"{server.url}/?spec=gallery/digits.yaml")


def test_each_is_laid_out_readably_and_shows_what_validate_says(canvas: Canvas) -> None:
    wrong: dict[str, list[str]] = {}
    for path in GALLERY:
        look = opened(canvas, path)
        told = [f"line {p.place.line} {p.message}" for p in check(read(path)).problems]
        if found := unreadable(look) + ([] if look["problems"] == told else [f"{look['problems']} is not {told}"]):
            wrong[path.stem] = found
    canvas.page.get_by_role("button", name="Back to the saved file").click()
    expect(canvas.page.locator(".dirty")).to_have_text("saved")
    assert wrong == {}
