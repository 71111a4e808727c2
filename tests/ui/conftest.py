"""A real browser against a real server. Every page asserts at its end that nothing went wrong in the console and that
nothing beyond this computer was asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlparse

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

PATIENCE = 60_000
"""Milliseconds that a page is waited for: as long as a slow computer that does other things too needs to draw it."""
expect.set_options(timeout=PATIENCE)
settings.register_profile("page", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("page")  # how long a draw takes says how busy the computer is, and nothing of the draw
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BEYOND = re.compile(r"^https?://(?!127\.0\.0\.1[:/]|localhost[:/])")


@dataclass
class Server:
    """`assembler ui` in a process of its own, in a workspace of its own."""

    workspace: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    cwd: Path = ROOT
    python: str = sys.executable
    port: int = 0
    url: str = ""

    def start(self) -> Server:
        """Start and wait until it answers; the port is kept over a restart."""
        command = [self.python, "-m", "assembler.cli", "ui", "--port", str(self.port)]
        command += ["--workspace", str(self.workspace), *self.arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **self.environment}
        self.process = subprocess.Popen(
            command, cwd=self.cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self.process.stdout is not None
        self.log: list[str] = []
        for line in self.process.stdout:
            self.log.append(line)
            if line.startswith("assembler: http"):
                break
        else:
            raise AssertionError("the server did not start: " + "".join(self.log))
        self.url = line.split()[1]
        self.port = urlparse(self.url).port or 0
        threading.Thread(target=self._drain, daemon=True).start()
        self._wait()
        return self

    def _drain(self) -> None:
        assert self.process.stdout is not None
        self.log.extend(self.process.stdout)

    def _wait(self) -> None:
        import time
        import urllib.request

        health = f"http://127.0.0.1:{self.port}/_stcore/health"
        for _ in range(600):
            try:
                with urllib.request.urlopen(health, timeout=1):
                    return
            except OSError as error:
                if getattr(error, "code", None) == 403:
                    return  # it answers, and wants its token
                time.sleep(0.05)
        raise AssertionError("the server does not answer: " + "".join(self.log))

    def stop(self) -> None:
        """End it as Ctrl-C would not: at once."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole session, in an empty workspace."""
    started = Server(tmp_path_factory.mktemp("workspace")).start()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[..., Browser]]:
    """Start the system's Chromium, with more flags where they are given."""
    if CHROMIUM is None:
        pytest.skip("the tests of the page drive Chromium; install it (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        yield lambda *flags: playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=[*FLAGS, *flags])


@pytest.fixture(scope="session")
def browser(launch: Callable[..., Browser]) -> Iterator[Browser]:
    """The system's Chromium."""
    found = launch()
    yield found
    found.close()


@dataclass
class Watched:
    """What a page asked for and complained about."""

    errors: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        """Note every error of the console and block every request beyond this computer."""
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.route(BEYOND, self._block)

    def _hear(self, message) -> None:
        # Opened at a page's own address, Streamlit first asks below it for its server, and then at the root.
        asks_for_its_server = "/_stcore/" in message.location.get("url", "") and "404" in message.text
        if message.type == "error" and not asks_for_its_server:
            self.errors.append(message.text)

    def _block(self, route) -> None:
        self.beyond.append(route.request.url)
        route.abort()


@pytest.fixture
def watched() -> Watched:
    """What the test's pages do wrong; a test that makes something go wrong empties it."""
    return Watched()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: drives a real browser")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what drives a browser, so that all the rest can run beside other tests."""
    for item in items:
        if "launch" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails leaves a picture of its page."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.failed and page is not None and call.when == "call":
        path = Path(tempfile.gettempdir()) / f"{item.name}.png"
        page.screenshot(path=path)
        report.sections.append(("picture of the page", str(path)))
    return report


@pytest.fixture
def page(browser: Browser, watched: Watched) -> Iterator[Page]:
    """A fresh page; go to `server.url`."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    found = context.new_page()
    watched.watch(found)
    yield found
    context.close()
    assert watched.errors == []
    assert watched.beyond == []


def press(button: Locator) -> None:
    """Press the one such button. While Streamlit draws a form anew, its old button may for a moment stand beside it."""
    while True:
        expect(button).to_have_count(1)
        try:
            button.click()
        except Error as error:  # drawn anew between the look and the click, and nothing was pressed
            if "strict mode violation" not in str(error):
                raise
        else:
            return
