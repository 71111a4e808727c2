"""What must survive: a run, a closed page and a restarted server; the page, everybody else's text."""

import json

import pytest
from playwright.sync_api import expect

from assembler.runs import Run
from tests.ui.conftest import Server, press
from tests.ui.test_jobs import SPEC
from ui import training
from ui.access import TOKEN

SLOW = 240_000


def badge(page):
    return page.locator(".stMarkdownBadge").first


def test_a_run_survives_the_server_and_is_found_stopped_resumed_and_deleted(page, tmp_path, watched):
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "long.yaml").write_text(SPEC.replace("steps: 60", "steps: 100000"))
    server = Server(tmp_path).start()
    try:
        page.goto(f"{server.url}/train?spec=specs/long.yaml")
        press(page.get_by_role("button", name="Start training"))
        expect(page.get_by_text("of 100,000")).to_be_visible(timeout=SLOW)
        run = Run(tmp_path / "runs" / "small-1")
        job = training.job_of(run)
        server.stop()
        step = training.status(run).step
        assert job.running
        page.goto("about:blank")
        server.start()
        watched.errors.clear()  # the page lost its server, and said so
        page.goto(f"{server.url}/train?run=small-1")
        expect(badge(page)).to_contain_text("running")
        expect(page.get_by_test_id("stMetricValue").first).not_to_have_text(f"{step:,} of 100,000", timeout=SLOW)
        assert training.status(run).step > step
        press(page.get_by_role("button", name="Stop training"))
        expect(badge(page)).to_contain_text("stopped", timeout=SLOW)
        assert training.status(run).word.startswith("stopped at step")
        press(page.get_by_role("button", name="Resume"))
        expect(badge(page)).to_contain_text("running", timeout=SLOW)
        page.get_by_role("link", name="Runs").click()
        expect(page.get_by_role("button", name="Delete")).to_be_disabled()
        job.stop(at_once=True)
        page.get_by_role("link", name="Gallery").click()
        page.get_by_role("link", name="Runs").click()
        press(page.get_by_role("button", name="Delete"))
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("There are no runs yet")).to_be_visible()
        assert not run.folder.exists()
    finally:
        server.stop()
        training.job_of(Run(tmp_path / "runs" / "small-1")).stop(at_once=True)


HOSTILE = '<img src=x onerror="document.title=1"> ![p](http://evil.example/p.png) <script>document.title=2</script>'


def test_text_of_a_spec_is_never_html_nor_an_address(page, server):
    specs = server.workspace / "specs"
    specs.mkdir(exist_ok=True)
    name = "hostile"
    nodes = {"photo": {"type": HOSTILE}, HOSTILE: {"type": "input.image"}}
    document = {"assembler": 1, "name": HOSTILE, "nodes": nodes, "stages": [{"name": HOSTILE, "train": [HOSTILE]}]}
    (specs / f"{name}.yaml").write_text(f"# {HOSTILE}\n{json.dumps(document)}\n")
    page.goto(f"{server.url}/train?spec=specs/{name}.yaml")
    expect(page.get_by_text("problems", exact=False).first).to_be_visible()
    expect(page.get_by_text("<img src=x", exact=False).first).to_be_visible()
    page.get_by_role("link", name="Gallery").click()
    expect(page.get_by_text("<img src=x", exact=False).first).to_be_visible()
    assert page.locator("img[src='x'], img[src*='evil']").count() == 0
    assert page.title() not in ("1", "2")
    (specs / f"{name}.yaml").unlink()


@pytest.mark.parametrize("key", ["../../etc/passwd", "../secret.yaml", "specs/none.yaml", "/etc/hostname"])
def test_an_address_that_leads_outside_opens_nothing(page, server, key):
    (server.workspace.parent / "secret.yaml").write_text("assembler: 1\nname: secret\n")
    page.goto(f"{server.url}/train?spec={key}")
    expect(page.get_by_text("there is no such spec in the workspace", exact=False)).to_be_visible()
    expect(page.get_by_text("secret", exact=True)).to_have_count(0)


def test_on_another_address_the_page_wants_its_token(browser, tmp_path):
    server = Server(tmp_path, ("--address", "0.0.0.0"), {TOKEN: "a-long-token"}).start()
    try:
        assert server.url.endswith("/?token=a-long-token")
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(f"http://127.0.0.1:{server.port}/").status == 403
        expect(page.get_by_text("wants the token")).to_be_visible()
        page.goto(f"http://127.0.0.1:{server.port}/gallery?token=a-long-token")
        expect(page.get_by_role("heading", name="Gallery")).to_be_visible()
        assert "token" not in page.url
        context.close()
    finally:
        server.stop()
