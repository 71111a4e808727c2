"""The Try page with every sense: recorded by camera and microphone, uploaded within limits, shown, and answered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from assembler.spec import parse, read
from assembler.train import train
from tests.ui import senses
from tests.ui.conftest import PATIENCE, Server, Watched, press
from ui import talking
from ui.workspace import WORKSPACE

SLOW = 240_000
DEVICES = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
REPLACED = re.compile(r"status of 404|/media/\w+\.jpg")
TWO_HEADS = """\
assembler: 1
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_efficientnet, output: pooled}
  kind: {type: head.classifier, classes: 10}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4}
    prompt: "{question} {answer}"
    max_new_tokens: 3
edges: [photo -> eyes, eyes -> kind]
data: {type: dataset.digits, columns: {photo: image, answer: word}}
stages: [{name: s, train: [kind], steps: 1, batch: 2}]
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run that took one step."""
    folder = tmp_path_factory.mktemp("senses")
    train(read(senses.write(folder)), folder / "runs" / "senses")
    return folder


@pytest.fixture(scope="module")
def server(workspace: Path) -> Iterator[Server]:
    started = Server(workspace, environment={"STREAMLIT_SERVER_MAX_UPLOAD_SIZE": "1"}).start()
    yield started
    started.stop()


@pytest.fixture
def page(launch: Callable[..., Browser], server: Server, watched: Watched) -> Iterator[Page]:
    """The Try page in a browser with a camera and a microphone."""
    browser = launch(*DEVICES)
    context = browser.new_context(viewport={"width": 1440, "height": 900}, permissions=["camera", "microphone"])
    context.set_default_timeout(PATIENCE)
    found = context.new_page()
    watched.watch(found)
    found.goto(f"{server.url}/try")
    expect(found.get_by_role("button", name="Ask", exact=True)).to_be_enabled(timeout=SLOW)
    yield found
    browser.close()
    # A picture that a newer one replaces may be gone before the browser has asked for it.
    assert [error for error in watched.errors if not REPLACED.search(error)] == []
    assert watched.beyond == []


def test_camera_microphone_cloud_and_cell(page: Page, tmp_path: Path) -> None:
    cloud = page.locator(".st-key-cloud-cloud canvas")
    expect(cloud).to_have_attribute("aria-label", "64 points, turning")
    page.wait_for_function("e => e.dataset.turn > 0.62", arg=cloud.element_handle())
    cloud.scroll_into_view_if_needed()
    box = cloud.bounding_box()
    assert box
    page.mouse.move(box["x"] + 40, box["y"] + 60)
    page.mouse.down()
    turn = float(cloud.get_attribute("data-turn") or 0)
    page.mouse.move(box["x"] + 240, box["y"] + 60, steps=4)
    page.wait_for_function("([e, turn]) => e.dataset.turn > turn + 1.9", arg=[cloud.element_handle(), turn])
    page.mouse.up()

    expect(page.get_by_text("of 4 genes are seen, raw counts; the highest:")).to_be_visible()
    expect(page.get_by_text("Its place among 2 others")).to_be_visible()
    senses.write_cells(tmp_path / "many.h5ad", np.random.default_rng(1).poisson(4, (9, 4)))
    page.get_by_test_id("stFileUploader").filter(has_text="cell").locator("input").set_input_files(
        tmp_path / "many.h5ad"
    )
    expect(page.get_by_text("Its place among 8 others")).to_be_visible()

    page.locator(".st-key-record-photo label").click()
    taken = page.get_by_role("button", name="Clear photo")
    for _ in range(20):  # the camera is drawn anew once it gives pictures, and a click before that is lost
        if taken.is_visible():
            break
        press(page.get_by_role("button", name="Take Photo").or_(taken))
        page.wait_for_timeout(1000)
    expect(taken).to_be_visible()
    page.locator(".st-key-record-sound label").click()
    sound = page.get_by_test_id("stAudioInput")
    expect(page.get_by_text("0.5 s at 16,000 Hz")).to_be_visible()  # the held-out row's
    before = page.get_by_text("0.5 s at 16,000 Hz")
    for _ in range(5):  # the microphone too is drawn anew, and what it recorded until then is lost
        sound.get_by_label("Record").click()
        page.wait_for_timeout(900)
        sound.get_by_label("Stop recording").click()
        page.wait_for_timeout(3000)
        if not before.count():
            break
    expect(before).to_have_count(0)
    expect(page.get_by_text(re.compile(r"^\d+\.\d s at \d\d,\d00 Hz$"))).to_be_visible()

    press(page.get_by_role("button", name="Ask", exact=True))
    expect(page.get_by_text(re.compile("tokens in"))).to_be_visible(timeout=SLOW)


def test_an_upload_has_a_limit_that_the_server_holds(page: Page, tmp_path: Path, watched: Watched) -> None:
    chooser = page.get_by_test_id("stFileUploader").filter(has_text="photo").locator("input")
    (tmp_path / "large.png").write_bytes(bytes(2 << 20))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    chooser.set_input_files(tmp_path / "large.png")
    expect(page.get_by_text("must be 1.0MB or smaller")).to_be_visible()
    with page.expect_request(lambda request: request.method == "PUT") as sent:
        chooser.set_input_files(tmp_path / "broken.png")
    expect(page.get_by_test_id("stAlert").filter(has_text="broken.png")).to_be_visible()
    headers = {k: v for k, v in sent.value.all_headers().items() if k not in ("content-length", "content-type")}
    form = {"file": {"name": "x.png", "mimeType": "image/png", "buffer": bytes(2 << 20)}}
    assert page.request.put(sent.value.url, headers=headers, multipart=form).status == 413
    watched.errors.clear()


def test_an_answer_grows_as_it_is_said(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, str(workspace))
    talker = talking.load(workspace / "runs" / "senses")
    assert talker.wants == {"photo": "image", "sound": "audio", "cloud": "points", "cell": "expression"}
    row = talker.held_out(1)[0]
    heard: list[str] = []
    answer = talker.ask({name: row[name] for name in talker.wants}, heard.append)
    assert row["expected"] == "yes" and answer.tokens is not None
    assert heard[-1] == answer.text and heard == sorted(heard, key=len) and len(heard) >= answer.tokens


def test_every_head_answers_in_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    train(parse(TWO_HEADS, tmp_path / "two.yaml"), tmp_path / "runs" / "two")
    talker = talking.load(tmp_path / "runs" / "two")
    assert talker.wants == {"photo": "image", "question": "text"}
    row = talker.held_out(1)[0]
    assert re.fullmatch(r"talk: [a-z]+\nkind: \d", row["expected"])
    answer = talker.ask({name: row[name] for name in talker.wants}, lambda text: None)
    assert re.fullmatch(r"talk: .*\nkind: \d", answer.text, re.DOTALL) and answer.tokens is not None
