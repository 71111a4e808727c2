"""The whole way with a mouse and a keyboard: from an empty canvas to a bundle on the disk."""

import subprocess
import sys
import zipfile

import pytest
from playwright.sync_api import Page, expect

from assembler.bundle.runtime import Bundle
from assembler.spec import parse, read
from tests.ui.conftest import ROOT, Server, press
from ui.exporting import speed_of
from ui.workspace import Workspace

SLOW = 600_000
"""Milliseconds: a process starts, imports torch and works, on a machine that does other things too."""
BY_HAND = """\
assembler: 1
name: model
nodes:
  photo: {type: input.image}
  eyes: {type: encoder.timm, model: test_efficientnet}
  bridge: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4,
             num_key_value_heads: 2}
    prompt: "{eyes} {question} {answer}"
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.eyes]
adapters:
  tune: {type: adapter.lora, host: talk}
"""


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """The mouse goes down, moves in steps and comes up."""
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=12)
    page.mouse.up()


def middle(locator) -> tuple[float, float]:
    box = locator.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drop(page: Page, part: str, end: tuple[float, float]) -> None:
    """Drag a part from the palette."""
    item = page.locator(f'[data-part="{part}"]')
    item.scroll_into_view_if_needed()
    drag(page, middle(item), end)


def node(page: Page, name: str):
    return page.locator(f'article[data-node="{name}"]')


def draw(page: Page) -> None:
    """An input, an encoder and an LLM; wired, mended where the sizes clash, with a LoRA and a question."""
    drop(page, "input.image", (380, 330))
    drop(page, "encoder.timm", (640, 330))
    drop(page, "backbone.causal_lm", (960, 330))
    for name in ("photo", "eyes", "talk"):
        expect(node(page, name)).to_be_visible()
    drag(page, middle(page.get_by_label("output of photo,")), middle(page.get_by_label("input in of eyes,")))
    drag(page, middle(page.get_by_label("output of eyes,")), middle(page.get_by_label("new slot of talk")))
    mend = page.get_by_role("button", name="insert", exact=False).first
    expect(mend).to_contain_text("32")
    mend.click()
    expect(node(page, "bridge")).to_be_visible()
    drop(page, "adapter.lora", middle(node(page, "talk").locator("header")))
    expect(node(page, "talk").get_by_role("button", name="tune")).to_be_visible()
    node(page, "talk").locator("header").click()
    prompt = page.locator("#talk-prompt")
    prompt.fill("{eyes} {question} {answer}")
    prompt.blur()
    expect(page.get_by_text("No problems")).to_be_visible()


@pytest.fixture
def server(tmp_path_factory):
    """A server of its own: the canvas that others drew on is not empty."""
    started = Server(tmp_path_factory.mktemp("workspace")).start()
    yield started
    started.stop()


def test_from_an_empty_canvas_to_a_bundle_on_the_disk(server, page, tmp_path):  # the page is closed first
    page.goto(server.url)
    expect(page.get_by_text("An empty canvas")).to_be_visible()
    draw(page)
    page.get_by_role("button", name="Save", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill("first")
    dialog.get_by_role("button", name="Save", exact=True).click()
    saved = server.workspace / "specs" / "first.yaml"
    expect(page.get_by_role("toolbar")).to_contain_text("saved", timeout=SLOW)
    command = [sys.executable, "-m", "assembler.cli", "validate", str(saved)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    drawn = read(saved).document.model_dump(exclude={"layout"})
    assert drawn == parse(BY_HAND).document.model_dump(exclude={"layout"})

    train(page)
    ask(page, tmp_path)
    export(page, tmp_path)
    measure(page, Workspace(server.workspace))
    side_by_side(page)


def train(page: Page) -> None:
    """Data and a stage of twenty steps from the form; the plot moves, and the run is done."""
    page.get_by_role("link", name="Train").click()
    choose(page, "Dataset", "dataset.digits")
    expect(page.get_by_label("photo takes the image")).to_have_value("image")  # there is no other
    choose(page, "answer takes the text", "word")
    press(page.get_by_role("button", name="Add a stage"))
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("20")
    steps.press("Tab")
    batch = page.get_by_label("Batch", exact=True)
    batch.fill("2")
    batch.press("Tab")
    expect(page.get_by_role("radiogroup", name="talk in stage 1").get_by_role("radio", checked=True)).to_have_text(
        "LoRA"
    )
    press(page.get_by_role("button", name="Start training", disabled=False))
    expect(page.locator(".stMarkdownBadge")).to_contain_text("running")
    expect(page.get_by_test_id("stVegaLiteChart")).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("20 of 20")).to_be_visible(timeout=SLOW)
    expect(page.locator(".stMarkdownBadge")).to_contain_text("done", timeout=SLOW)
    expect(page.get_by_text("Answers to rows it does not learn from")).to_be_visible()


def choose(page: Page, label: str, option: str) -> None:
    """Choose from a list by its label."""
    page.get_by_label(label).click()
    page.get_by_role("option", name=option, exact=True).click()
    expect(page.get_by_label(label)).to_have_value(option)


def ask(page: Page, tmp_path) -> None:
    """The question is a held-out row's, and the answer has so many tokens."""
    page.get_by_role("link", name="Try").click()
    button = page.get_by_role("button", name="Ask", exact=True)
    expect(button).to_be_enabled(timeout=SLOW)
    press(button)
    expect(page.get_by_text("tokens in")).to_be_visible(timeout=SLOW)


def export(page: Page, tmp_path) -> None:
    """The bundle is written, equals torch and comes down whole."""
    page.get_by_role("link", name="Export").click()
    press(page.get_by_role("button", name="Export", exact=True))
    download = page.get_by_role("link", name="Download")
    expect(download).to_be_visible(timeout=SLOW)
    expect(page.get_by_text("equals torch")).to_be_visible()
    expect(page.get_by_text("assembler serve ")).to_be_visible()
    with page.expect_download() as found:
        download.click()
    found.value.save_as(tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert Bundle(folder).manifest.precision == "fp32"


def measure(page: Page, workspace: Workspace) -> None:
    """The bundle answers rows of its run, and how fast it was is in the table."""
    press(page.get_by_role("button", name="Measure"))
    for _ in range(SLOW // 100):
        if speed := speed_of(workspace, "model-1-fp32"):
            break
        page.wait_for_timeout(100)
    assert speed is not None and speed.first_token > 0


def side_by_side(page: Page) -> None:
    """The run and its bundle answer the same row, each in its own column, and say the same."""
    page.get_by_role("link", name="Try").click()
    button = page.get_by_role("button", name="Ask", exact=True)
    expect(button).to_be_enabled(timeout=SLOW)
    press(button)
    expect(page.get_by_text("tokens in")).to_have_count(2, timeout=SLOW)
    answers = page.locator(".st-key-answer-0, .st-key-answer-1").locator(".stText")
    expect(answers).to_have_count(2)
    assert answers.nth(0).inner_text() == answers.nth(1).inner_text()
