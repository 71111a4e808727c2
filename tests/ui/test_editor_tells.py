"""What the canvas tells beside the drawing: costs, what learns, labels, where problems are, groups, a run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from assembler.processes import Process
from tests.ui.canvas import Canvas
from tests.ui.conftest import PATIENCE, Server
from tests.ui.test_editor import TINY
from ui.opening import KEY

LEARNS = (
    TINY
    + """\
adapters:
  tune: {type: adapter.lora, host: talk}
data: {type: dataset.digits, columns: {photo: image, answer: word}}
stages:
  - {name: align, train: [bridge, tune], steps: 40}
"""
)


@pytest.fixture
def learns(server: Server, request: pytest.FixtureRequest) -> Path:
    """A spec of this test's own, with a stage."""
    path = server.workspace / "specs" / f"{request.node.name[5:25]}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(LEARNS.replace("name: tiny", f"name: {path.stem}"))
    return path


@pytest.fixture
def canvas(page: Page, server: Server, learns: Path) -> Canvas:
    return Canvas(page, f"{server.url}/?spec=specs/{learns.name}")


def foot(canvas: Canvas, node: str):
    return canvas.node(node).locator(".foot")


def test_every_node_says_what_it_costs_and_what_learns_in_it(canvas: Canvas) -> None:
    page = canvas.page
    expect(foot(canvas, "eyes")).to_contain_text("frozen")
    expect(page.locator(".meter")).to_be_visible(timeout=300_000)  # torch is imported and counts beside the page
    expect(foot(canvas, "eyes")).to_contain_text(re.compile(r"300 k1\.14 MiB"))
    expect(foot(canvas, "bridge")).to_contain_text("trained")
    expect(foot(canvas, "bridge").locator(".cost")).to_have_attribute(
        "title", re.compile(r"^3,120 parameters, 3,120 tr.*FLOP")
    )
    expect(foot(canvas, "talk")).to_contain_text(re.compile(r"LoRA \d+(\.\d+)? %"))
    expect(canvas.node("photo").locator(".foot")).to_have_count(0)
    meter = page.locator(".meter")
    page.get_by_label("GPU", exact=True).select_option("H100 80 GB")
    expect(meter).to_have_attribute("title", re.compile("of 80.0 GiB"))
    page.get_by_label("GPU", exact=True).select_option("other")
    page.get_by_label("Memory of the GPU").fill("0.001")
    expect(meter).to_contain_text("does not fit")
    canvas.select("talk")
    preview = page.locator(".preview")
    expect(preview.locator("mark.wire")).to_contain_text(re.compile(r"photo \d+"))
    expect(preview.locator("mark.answer")).to_contain_text(re.compile(r"zero \d+"))  # a sample of the data
    expect(page.locator(".template mark")).to_have_text(["{photo}", "{question}", "{answer}"])
    page.locator(".about summary").click()
    expect(page.locator(".about")).to_contain_text("prompt")


def test_wires_show_what_is_asked_for_and_a_break_is_grey_behind_it(canvas: Canvas) -> None:
    page = canvas.page
    label = page.locator('[data-wire="photo -> eyes"] span')
    expect(label).to_have_text("[B, 3, 32, 32]")
    canvas.root.focus()
    page.keyboard.press("l")
    expect(label).to_have_text("[B, 3, 32, 32] fp32")
    page.keyboard.press("l")
    expect(label).to_have_text("12.0 KiB")
    page.keyboard.press("l")
    expect(page.locator(".wire-label")).to_have_count(0)
    page.keyboard.press("l")
    expect(label).to_have_text("[B, 3, 32, 32]")
    canvas.select("eyes")
    page.get_by_label("Remove photo -> eyes").click()
    canvas.checked()
    expect(page.locator('[data-wire="bridge -> talk.photo"]')).to_have_class(re.compile("unknown"))
    expect(page.locator('[data-wire="bridge -> talk.photo"]')).to_have_text("unknown")
    expect(canvas.node("eyes").locator(".badge")).to_be_visible()
    for node in ("bridge", "talk"):  # only where it breaks is something wrong
        expect(canvas.node(node).locator(".badge")).to_have_count(0)
    canvas.select("photo")
    before = canvas.node("eyes").bounding_box()
    page.locator(".problems .go", has_text="eyes").first.click()
    expect(canvas.node("eyes")).to_have_class(re.compile("selected"))
    page.wait_for_timeout(400)
    box, stage = canvas.node("eyes").bounding_box(), page.locator(".canvas").bounding_box()
    assert box and stage and before != box
    assert abs(box["x"] + box["width"] / 2 - stage["x"] - stage["width"] / 2) < 40
    page.get_by_role("button", name=re.compile("^Undo")).click()
    canvas.expect_count("problems", 0)


def test_a_group_is_named_commented_and_moved_as_one(canvas: Canvas) -> None:
    page, first = canvas.page, canvas.yaml()
    canvas.select("eyes")
    canvas.node("bridge").locator("header").click(modifiers=["Shift"])
    page.keyboard.press("g")
    name = page.locator(".field.name input")
    name.fill("sight")
    name.press("Enter")
    page.get_by_label("comment").fill("the part that sees")
    page.get_by_label("comment").blur()
    title = page.locator(".frame-title")
    expect(title).to_have_text("sight the part that sees")
    before = {node: canvas.node(node).bounding_box() for node in ("photo", "eyes", "bridge")}
    past = canvas.count("past")
    x, y = canvas.middle(title)
    canvas.drag((x, y), (x + 30, y + 120))
    canvas.expect_count("past", past + 1)
    after = {node: canvas.node(node).bounding_box() for node in before}
    moved = {node: round(after[node]["y"] - before[node]["y"]) for node in before}
    assert moved["photo"] == 0 and moved["eyes"] == moved["bridge"] > 80
    canvas.checked()
    assert "groups:\n  sight: {nodes: [eyes, bridge], note: the part that sees}" in canvas.yaml()
    title.click()
    page.get_by_role("button", name="Ungroup").click()
    for _ in range(canvas.count("past")):
        page.get_by_role("button", name=re.compile("^Undo")).click()
    canvas.checked()
    assert canvas.yaml() == first


def test_fingers_drag_parts_and_wires(browser: Browser, server: Server, learns: Path, watched) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, has_touch=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    watched.watch(page)
    canvas = Canvas(page, f"{server.url}/?spec=specs/{learns.name}")
    touch = context.new_cdp_session(page)

    def finger(kind: str, *at: float) -> None:
        points = [{"x": at[0], "y": at[1]}] if at else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def drag(start: tuple[float, float], end: tuple[float, float]) -> None:
        """Sideways first: up and down scrolls the palette."""
        finger("touchStart", *start)
        for x, y in [(start[0] + 40, start[1]), (end[0], start[1]), ((end[0], (start[1] + end[1]) / 2)), end, end]:
            finger("touchMove", x, y)
        finger("touchEnd")

    page.get_by_role("searchbox", name="Search parts").fill("input.audio")
    drag(canvas.middle(canvas.item("input.audio")), canvas.at(0.3, 0.15))
    canvas.expect_count("nodes", 5)
    page.get_by_role("searchbox", name="Search parts").fill("encoder.whisper")
    drag(canvas.middle(canvas.item("encoder.whisper")), canvas.at(0.65, 0.15))
    canvas.expect_count("nodes", 6)
    canvas.checked()  # its ports stand where they stay
    drag(canvas.middle(canvas.port("sound", "out")), canvas.middle(canvas.port("ears", "in")))
    canvas.expect_count("edges", 4)
    context.close()


def test_parts_are_found_filtered_and_added_and_copied_as_yaml(canvas: Canvas) -> None:
    page = canvas.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    palette = page.locator(".palette .item")
    everything = palette.count()
    page.get_by_role("button", name="sound", exact=True).click()
    expect(canvas.item("input.audio")).to_be_visible()
    expect(canvas.item("input.image")).to_have_count(0)
    page.get_by_role("button", name="sound", exact=True).click()
    expect(palette).to_have_count(everything)
    search = page.get_by_role("searchbox", name="Search parts")
    search.fill("2106.09685")  # a paper
    expect(canvas.item("adapter.lora")).to_be_visible()
    search.fill("picture")  # an alias
    canvas.item("input.image").dblclick()
    canvas.expect_count("nodes", 5)
    search.fill("points")
    canvas.item("input.points").press("Enter")
    canvas.expect_count("nodes", 6)
    page.locator(".legend summary").click()
    expect(page.locator(".legend")).to_contain_text("waveform [B, samples]")
    canvas.select("talk")
    page.keyboard.press("Control+c")
    text = page.evaluate("navigator.clipboard.readText()")
    assert "nodes:\n  talk:\n    type: backbone.causal_lm" in text and "tune:\n    type: adapter.lora" in text
    page.keyboard.press("Control+v")
    canvas.expect_count("nodes", 7)
    canvas.checked()
    assert "tune2: {type: adapter.lora, host: talk2" in canvas.yaml()
    page.get_by_label("Copy the command").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("assembler validate ")


def test_a_run_is_seen_on_the_nodes_that_it_trains(canvas: Canvas, server: Server, learns: Path) -> None:
    page = canvas.page
    run = server.workspace / "runs" / "going"
    run.mkdir(parents=True)
    (run / "spec.yaml").write_text(learns.read_text())
    Process.of(os.getpid(), ["assembler", "train"]).write(run / "process.json")
    with (run / "metrics.jsonl").open("w") as metrics:
        for step in range(1, 11):
            metrics.write(json.dumps({"stage": "align", "step": step, "loss": 2.0, "time": float(step)}) + "\n")
    expect(page.locator(".run-now")).to_have_text("going step 10 of 40")
    for node in ("bridge", "talk"):
        expect(canvas.node(node).locator(".run-bar")).to_have_attribute("value", "10")
    expect(canvas.node("eyes").locator(".run-bar")).to_have_count(0)
    (run / "process.json").unlink()
    expect(page.locator(".run-now")).to_have_text("going ended early")
    expect(page.locator(".run-bar")).to_have_count(0)
    page.locator(".run-now").click()
    expect(page.get_by_role("heading", name="Train")).to_be_visible()
    expect(page).to_have_url(re.compile("run=going"))


def test_a_spec_of_the_gallery_is_opened_changed_and_saved_as_ones_own(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/gallery")
    card = page.locator(".st-key-card-gallery-houlsby-yaml")
    expect(card).to_contain_text("Houlsby")
    expect(card.locator("img")).to_be_visible()
    card.get_by_role("button", name="Open").click()
    canvas = Canvas.on(page)
    assert f"{KEY}=gallery%2Fhoulsby.yaml" in page.url
    page.get_by_label("Name of the model").fill("mine")
    page.get_by_label("Name of the model").press("Enter")
    page.keyboard.press("Control+s")  # the gallery is only read, so it asks for a name
    page.get_by_label("Name of the file").press("Enter")
    expect(page.locator(".dirty")).to_have_text("saved")
    canvas.checked()
    canvas.expect_count("problems", 0)  # its paths lead where they led
    assert "name: mine" in (server.workspace / "specs" / "mine.yaml").read_text()
    zoom = page.locator(".react-flow__viewport")
    page.get_by_label("Zoom In").click()
    page.wait_for_timeout(300)
    before = zoom.get_attribute("style")
    page.get_by_role("link", name="Runs").click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    page.get_by_role("link", name="Build").click()
    Canvas.on(page)
    expect(zoom).to_have_attribute("style", before or "")
    expect(page.get_by_label("Name of the model")).to_have_value("mine")
