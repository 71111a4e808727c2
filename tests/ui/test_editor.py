"""The editor in a real browser: drawing, being refused, mending, undoing, and nothing lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from assembler.check import check
from assembler.spec import read
from tests.ui.canvas import Canvas
from tests.ui.conftest import ROOT, Server

TINY = """\
# a tiny one
assembler: 1
name: tiny
nodes:
  photo: {type: input.image, size: [32, 32]}   # small
  eyes: {type: encoder.timm, model: test_vit, freeze: true}
  bridge: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 48, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{photo} {question} {answer}"
edges:
  - photo -> eyes
  - eyes -> bridge
  - bridge -> talk.photo
layout: {photo: [0, 0], eyes: [320, 0], bridge: [640, 0], talk: [960, 0]}
"""


@pytest.fixture
def tiny(server: Server) -> Path:
    """A spec of this test's own in the server's workspace."""
    folder = server.workspace / "specs"
    folder.mkdir(exist_ok=True)
    path = folder / f"tiny{len(list(folder.iterdir()))}.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def canvas(page: Page, server: Server, tiny: Path) -> Canvas:
    return Canvas(page, f"{server.url}/?spec=specs/{tiny.name}")


def test_from_an_empty_canvas_to_a_saved_spec(page: Page, server: Server) -> None:
    canvas = Canvas(page, server.url)
    canvas.drop_part("input.image", canvas.at(0.15, 0.3))
    canvas.expect_count("nodes", 1)
    canvas.drop_part("encoder.timm", canvas.at(0.45, 0.3))
    canvas.set("model", "test_vit")
    canvas.drop_part("backbone.causal_lm", canvas.at(0.8, 0.3))
    canvas.set("config", "{vocab_size: 300, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 4}")
    canvas.wire("photo", "eyes")
    canvas.wire("eyes", "talk", "+")
    canvas.expect_count("edges", 2)
    canvas.checked()
    expect(page.locator(".wire-label.wrong")).to_contain_text("[B, 196, 64] ≠ 48")
    page.locator(".wire-label .mend", has_text="insert a projector 64 -> 48").click()
    canvas.checked()
    canvas.expect_count("problems", 0)
    expect(page.locator('[data-wire="bridge -> talk.eyes"]')).to_contain_text("[B, 196, 48]")
    canvas.drop_part("adapter.lora", canvas.middle(canvas.node("talk").locator("header")))
    expect(canvas.node("talk").locator(".chip")).to_contain_text("tune")
    canvas.select("talk")
    prompt = page.get_by_label("prompt")
    assert prompt.input_value() == "{eyes} {answer}"
    prompt.fill("{eyes} What is this? {answer}")
    prompt.blur()
    canvas.checked()
    page.keyboard.press("Control+s")
    page.get_by_label("Name of the file").fill("drawn")
    page.get_by_label("Name of the file").press("Enter")
    expect(page.locator(".dirty")).to_have_text("saved")
    path = server.workspace / "specs" / "drawn.yaml"
    command = [sys.executable, "-m", "assembler.cli", "validate", str(path)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    graph = check(read(path))
    assert [str(edge) for edge in graph.edges] == ["photo -> eyes", "eyes -> bridge", "bridge -> talk.eyes"]
    assert graph.parts["talk"].model_dump()["prompt"] == "{eyes} What is this? {answer}"
    assert graph.adapters["tune"].host == "talk"


def test_an_impossible_wire_dims_says_why_and_is_refused(canvas: Canvas) -> None:
    page = canvas.page
    page.get_by_role("searchbox", name="Search parts").fill("")
    canvas.drop_part("input.audio", canvas.at(0.2, 0.75))
    canvas.wire("sound", "eyes", drop=False)
    expect(canvas.port("eyes", "in").locator("..")).to_have_class(re.compile("dim"))
    expect(page.locator(".why")).to_have_text(re.compile("already fed by photo"))
    page.mouse.up()
    expect(page.locator(".said")).to_contain_text("Not connected: already fed by photo")
    canvas.drag(canvas.middle(canvas.port("sound", "out")), canvas.middle(canvas.port("talk", "question")))
    expect(page.locator(".said")).to_contain_text("gives waveform; this takes tokens or text")
    canvas.expect_count("edges", 3)


def test_a_wire_dropped_on_the_canvas_offers_what_fits(canvas: Canvas) -> None:
    page = canvas.page
    canvas.drag(canvas.middle(canvas.port("bridge", "out")), canvas.at(0.6, 0.8))
    expect(page.locator(".quick")).to_contain_text("Takes tokens of bridge")
    assert page.locator('.quick [data-part="input.image"]').count() == 0
    page.keyboard.type("mlp")
    page.keyboard.press("Enter")
    canvas.expect_count("nodes", 5)
    canvas.expect_count("edges", 4)
    canvas.checked()
    assert "bridge -> bridge2" in canvas.yaml()


def test_every_gesture_is_one_step_back(canvas: Canvas) -> None:
    page, before = canvas.page, canvas.yaml()
    box = canvas.node("bridge").locator("header")
    canvas.drag(canvas.middle(box), canvas.at(0.5, 0.7))
    canvas.expect_count("past", 1)
    canvas.select("eyes")
    page.keyboard.press("ArrowDown")
    canvas.expect_count("past", 2)
    page.keyboard.press("Control+d")
    canvas.expect_count("nodes", 5)
    page.keyboard.press("Delete")
    canvas.expect_count("nodes", 4)
    canvas.select("eyes")
    page.keyboard.press("g")
    page.get_by_label("comment").fill("sight")
    page.get_by_label("comment").blur()
    canvas.expect_count("past", 6)
    for _ in range(6):
        page.get_by_role("button", name=re.compile("^Undo")).click()
    canvas.expect_count("past", 0)
    canvas.checked()
    assert canvas.yaml() == before == TINY
    for _ in range(6):
        page.get_by_role("button", name=re.compile("^Redo")).click()
    canvas.expect_count("past", 6)
    canvas.checked()
    assert "note: sight" in canvas.yaml()


def test_the_text_beside_the_canvas_is_live_both_ways(canvas: Canvas) -> None:
    page = canvas.page
    page.get_by_role("tab", name="YAML").click()
    code = page.get_by_label("The spec as YAML")
    assert code.input_value() == TINY
    code.fill(TINY.replace("bridge: {type: projector.linear}", "bridge: {type: projector.mlp, depth: 3}   # deeper"))
    expect(canvas.node("bridge")).to_contain_text("mlp")
    code.fill("nodes: [")
    expect(page.locator(".refused")).to_contain_text("not valid YAML")
    canvas.expect_count("nodes", 4)
    page.get_by_role("tab", name="Inspector").click()
    canvas.select("bridge")
    canvas.set("depth", "2")
    canvas.checked()
    assert "bridge: {type: projector.mlp, depth: 2}   # deeper" in canvas.yaml()
    page.get_by_role("button", name=re.compile("^Undo")).click()
    page.get_by_role("button", name=re.compile("^Undo")).click()
    canvas.checked()
    assert canvas.yaml() == TINY


def test_a_dropped_file_opens_one_step_back_away(canvas: Canvas) -> None:
    canvas.page.evaluate(
        """text => {
          const roots = [...document.querySelectorAll("*")].map(e => e.shadowRoot);
          const root = roots.find(r => r?.querySelector(".editor"));
          const data = new DataTransfer();
          data.items.add(new File([text], "other.yaml"));
          const at = { dataTransfer: data, bubbles: true, composed: true };
          root.querySelector(".canvas").dispatchEvent(new DragEvent("drop", at));
        }""",
        "assembler: 1\nname: other\nnodes: {a: {type: input.image}, strange: {type: not.here, own: [1, {deep: x}]}}\n",
    )
    canvas.expect_count("nodes", 2)
    expect(canvas.node("strange")).to_contain_text("not installed")
    canvas.select("strange")
    canvas.page.keyboard.press("ArrowRight")
    canvas.checked()
    assert "strange: {type: not.here, own: [1, {deep: x}]}" in canvas.yaml()
    for _ in range(2):
        canvas.page.get_by_role("button", name=re.compile("^Undo")).click()
    canvas.expect_count("nodes", 4)


def test_text_of_a_spec_is_never_markup(page: Page, server: Server) -> None:
    path = server.workspace / "specs" / "evil.yaml"
    path.parent.mkdir(exist_ok=True)
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    path.write_text(
        f"assembler: 1\nname: evil\nnodes: {{a: {{type: '{evil}'}}, b: {{type: input.text, '{evil}': 1}}}}\n"
        f"edges: ['{evil}']\ngroups: {{g: {{nodes: [a], note: '{evil}'}}}}\n"
    )
    page.on("dialog", lambda dialog: pytest.fail(f"it ran: {dialog.message}"))
    canvas = Canvas(page, f"{server.url}/?spec=specs/evil.yaml")
    expect(canvas.node("a")).to_contain_text("<img src=x")
    canvas.select("b")
    canvas.yaml()
    assert page.locator(".editor img, .editor script").count() == 0


def test_parts_are_swapped_inserted_copied_and_found(canvas: Canvas) -> None:
    page = canvas.page
    canvas.select("bridge")
    page.keyboard.press("s")
    page.keyboard.type("mlp")
    page.keyboard.press("Enter")
    expect(canvas.node("bridge")).to_contain_text("mlp")
    canvas.expect_count("edges", 3)
    canvas.drop_part("projector.linear", canvas.middle(page.locator('[data-wire="bridge -> talk.photo"]')))
    canvas.expect_count("edges", 4)
    canvas.checked()
    assert "- bridge -> bridge2\n  - bridge2 -> talk.photo" in canvas.yaml()
    page.locator(".react-flow__pane").click(position={"x": 20, "y": 20})
    page.keyboard.press("Control+a")
    page.keyboard.press("Control+d")
    canvas.expect_count("nodes", 10)
    canvas.expect_count("edges", 8)
    page.keyboard.press("Control+f")
    page.get_by_role("searchbox", name="Search in the graph").fill("378")
    expect(page.locator(".found li")).to_have_count(0)
    page.get_by_role("searchbox", name="Search in the graph").fill("[b, 3, 32, 32]")
    expect(page.locator(".found li")).to_have_count(2)
    page.keyboard.press("Escape")


def test_everything_goes_by_keyboard(page: Page, server: Server) -> None:
    canvas = Canvas(page, f"{server.url}/?spec=")
    keys = page.keyboard
    canvas.root.focus()

    def add(part: str) -> None:
        keys.press("/")
        keys.type(part)
        keys.press("Enter")

    add("input image")
    canvas.expect_count("nodes", 1)
    add("timm")
    canvas.expect_count("edges", 1)
    add("causal lm")
    canvas.expect_count("edges", 2)
    canvas.checked()
    page.get_by_role("button", name=re.compile("insert a projector")).first.press("Enter")
    canvas.expect_count("nodes", 4)
    canvas.root.focus()
    canvas.node("eyes").focus()
    keys.press("Enter")
    keys.press("w")
    page.locator("#connect-to").select_option(label="talk: a new slot")
    canvas.expect_count("edges", 4)
    keys.press("Control+z")
    canvas.node("talk").focus()
    keys.press("Enter")
    keys.press("Delete")
    canvas.expect_count("nodes", 3)
    keys.press("Control+z")
    canvas.expect_count("nodes", 4)
    keys.press("?")
    expect(page.get_by_role("dialog", name="Shortcuts")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_accessibility(canvas: Canvas, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = canvas.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.reload()
    canvas.ready()
    for look in ("plain", "node", "adapter", "yaml", "menu"):
        if look == "node":
            canvas.select("talk")
        if look == "adapter":
            canvas.drop_part("adapter.lora", canvas.middle(canvas.node("talk").locator("header")))
        if look == "yaml":
            page.get_by_role("tab", name="YAML").click()
        if look == "menu":
            page.locator(".react-flow__pane").dblclick(position={"x": 60, "y": 60})
        page.wait_for_timeout(300)
        found = Axe().run(page).response["violations"]
        bad = [
            f"{v['id']}: {n['target']} {n['failureSummary']}"
            for v in found
            if v["impact"] in ("serious", "critical")
            for n in v["nodes"]
        ]
        assert bad == [], look


def test_adapters_are_attached_composed_and_wired_at_their_host(canvas: Canvas) -> None:
    page = canvas.page
    for part in ("adapter.lora", "adapter.lora"):
        canvas.drop_part(part, canvas.middle(canvas.node("talk").locator("header")))
    canvas.drop_part("adapter.lora", canvas.at(0.5, 0.85))
    expect(page.locator(".said")).to_contain_text("dropped on the node that hosts it")
    canvas.select("talk")
    page.get_by_label("operation").select_option("parallel")
    expect(canvas.node("talk").locator(".chips.parallel")).to_contain_text("tune2")
    canvas.checked()
    canvas.expect_count("problems", 0)
    assert 'talk: "parallel(tune, tune2)"' in canvas.yaml()
    page.get_by_label("composition as text").fill("parallel(tune")
    page.get_by_label("composition as text").press("Enter")
    canvas.checked()
    expect(page.locator(".problems")).to_contain_text("compose.talk")
    page.keyboard.press("Control+z")
    page.get_by_role("button", name=re.compile("^Undo")).click()
    canvas.node("talk").locator(".chip", has_text="tune2").click()
    expect(page.locator(".matches")).to_contain_text("4 of", timeout=300_000)
    page.locator(".sites .rows label", has_text="layers.*.attn.k").locator("input").check()
    expect(page.locator(".matches")).to_contain_text("6 of")
    canvas.checked()
    assert "layers.*.attn.{q,k,v}" in canvas.yaml()


def test_a_group_is_no_problem_and_is_undone(canvas: Canvas) -> None:
    canvas.page.locator(".react-flow__pane").click(position={"x": 20, "y": 20})
    canvas.page.keyboard.press("Control+a")
    canvas.page.keyboard.press("g")
    canvas.checked()
    canvas.expect_count("problems", 0)
    assert 'groups:\n  group: {nodes: [photo, eyes, bridge, talk], note: ""}' in canvas.yaml()


GALLERY = sorted((ROOT / "exports" / "gallery").glob("*.yaml"), key=lambda path: -path.stat().st_size)


@pytest.mark.parametrize("path", GALLERY[:2], ids=lambda path: path.stem)
def test_a_gallery_spec_opens_readably(page: Page, server: Server, path: Path) -> None:
    canvas = Canvas(page, f"{server.url}/?spec=gallery/{path.name}")
    canvas.checked()
    spec = read(path)
    assert spec.document is not None
    canvas.expect_count("nodes", len(spec.document.nodes))
    canvas.expect_count("problems", 0)
    page.wait_for_timeout(300)
    boxes = [box for node in page.locator(".react-flow__node-part").all() if (box := node.bounding_box())]
    assert len(boxes) == len(spec.document.nodes)
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            apart = (
                a["x"] + a["width"] <= b["x"] + 1
                or b["x"] + b["width"] <= a["x"] + 1
                or a["y"] + a["height"] <= b["y"] + 1
                or b["y"] + b["height"] <= a["y"] + 1
            )
            assert apart, "two nodes lie on each other"
    assert canvas.yaml() == path.read_text()
