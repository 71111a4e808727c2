"""No edit is lost: not by a reload, a server that ends, a second tab, or a check that takes two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.ui.canvas import Canvas
from tests.ui.conftest import PATIENCE, Server
from tests.ui.test_editor import TINY

SLOW = """\
import time
import assembler.check as checking
quick = checking.check
checking.check = lambda spec: (time.sleep(2 * str(getattr(spec, "path", "")).endswith("tiny.yaml")), quick(spec))[1]
"""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Server]:
    """A server whose checks take two seconds, with one spec."""
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "sitecustomize.py").write_text(SLOW)
    specs = tmp_path / "workspace" / "specs"
    specs.mkdir(parents=True)
    (specs / "tiny.yaml").write_text(TINY)
    started = Server(tmp_path / "workspace", environment={"PYTHONPATH": str(tmp_path / "late")}).start()
    yield started
    started.stop()


def move(canvas: Canvas, times: int) -> None:
    for _ in range(times):
        canvas.page.keyboard.press("ArrowDown")
        canvas.page.wait_for_timeout(80)


def test_edits_during_a_slow_check_outlive_reload_and_restart(slow: Server, page: Page, watched) -> None:
    canvas = Canvas(page, f"{slow.url}/?spec=specs/tiny.yaml")
    canvas.select("bridge")
    move(canvas, 5)
    canvas.expect_count("past", 5)
    page.keyboard.press("Delete")
    canvas.expect_count("nodes", 3)
    page.reload()
    canvas.ready()
    canvas.expect_count("nodes", 3)
    canvas.checked()
    canvas.select("eyes")
    slow.stop()
    page.keyboard.press("Delete")
    canvas.expect_count("nodes", 2)
    slow.start()
    canvas.checked()
    canvas.expect_count("nodes", 2)
    page.reload()
    canvas.ready()
    canvas.expect_count("nodes", 2)
    assert (slow.workspace / "specs" / "tiny.yaml").read_text() == TINY
    watched.errors.clear()  # the browser complains while the server is away


def test_two_tabs_follow_each_other_and_a_clash_is_asked_about(browser: Browser, server: Server, watched) -> None:
    path = server.workspace / "specs" / "shared.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(TINY)
    tabs = []
    for _ in range(2):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        watched.watch(page)
        tabs.append(Canvas(page, f"{server.url}/?spec=specs/shared.yaml"))
    one, two = tabs
    one.select("bridge")
    one.page.keyboard.press("Delete")
    two.expect_count("nodes", 3)
    two.select("eyes")
    two.page.keyboard.press("Delete")
    one.expect_count("nodes", 2)
    one.select("photo")
    two.select("talk")
    asked = clash(one, two)
    asked.page.get_by_role("button", name="Take theirs").click()
    expect(asked.page.get_by_role("alert")).to_have_count(0)
    for tab in tabs:
        tab.checked()
    one.expect_count("nodes", two.count("nodes"))
    expect(asked.page.get_by_role("button", name="Undo: Took the other tab's version")).to_be_enabled()
    for tab in tabs:
        tab.page.context.close()


def clash(one: Canvas, two: Canvas) -> Canvas:
    """Let both tabs draw at once until neither has heard of the other; the tab that is asked what to keep."""
    for _ in range(8):
        one.page.keyboard.press("Control+d")
        two.page.keyboard.press("ArrowDown")
        for _ in range(6):
            one.page.wait_for_timeout(150)
            two.page.wait_for_timeout(150)
            for tab in (one, two):
                if tab.page.get_by_role("alert").count():
                    expect(tab.page.get_by_role("alert")).to_contain_text("Another tab changed this model")
                    return tab
    raise AssertionError("the tabs always heard of each other in time")
