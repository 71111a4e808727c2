"""Pictures of every page, light and dark, for the README: `make screenshots` draws them anew into docs/.

A small model learns to read digits first, so that there is something to see.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from tests.ui.conftest import CHROMIUM, FLAGS, ROOT, Server

DOCS = ROOT / "docs"
SIZE = {"width": 1440, "height": 900}
TALL = {"train": 1180, "setup": 1040}
"""Heights of pages whose lower part tells as much as their upper one."""
WIDTH = 1200
COLOURS = 200
SLOW = 600_000
SPEC = """\
# Scanned digits, read by a small model that learns from nothing on a laptop.
assembler: 1
name: digits
nodes:
  photo: {type: input.image, size: [64, 64]}
  eyes: {type: encoder.timm, model: test_efficientnet}
  bridge: {type: projector.mlp, norm: true}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{photo} {question} {answer}"
    max_new_tokens: 6
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
data: {type: dataset.digits, options: {question: "Digit?"}, columns: {photo: image, answer: word}}
stages:
  - {name: align, train: [eyes, bridge, talk], steps: STEPS, batch: 24, lr: LR, warmup: 20, precision: fp32}
"""


def assembler(*arguments: str | Path) -> None:
    """A command of the assembler, which must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a busy computer, threads wait for each other
    subprocess.run([sys.executable, "-m", "assembler.cli", *map(str, arguments)], check=True, cwd=ROOT, env=environment)


def prepare(workspace: Path) -> None:
    """Two runs and two bundles."""
    (workspace / "specs").mkdir(parents=True)
    shutil.copy(ROOT / "exports" / "gallery" / "digits.yaml", workspace / "specs" / "digits-smollm.yaml")
    for name, steps, rate in (("digits-slow", 240, "5.0e-4"), ("digits", 240, "3.0e-3")):
        path = workspace / "specs" / f"{name}.yaml"
        path.write_text(SPEC.replace("STEPS", str(steps)).replace("LR", rate))
        assembler("train", path, "--run", workspace / "runs" / name, "--watch", "60")
    for precision in ("fp32", "int8"):
        out = workspace / "bundles" / f"digits-{precision}"
        assembler("export", workspace / "runs" / "digits", "--out", out, "--precision", precision)


def build(page: Page) -> None:
    expect(page.get_by_text("No problems")).to_be_visible(timeout=SLOW)
    expect(page.locator(".meter")).to_be_visible(timeout=SLOW)
    page.wait_for_timeout(4000)  # until it no longer says what was done last
    page.locator('article[data-node="talk"] header').click()


def train(page: Page) -> None:
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="digits-slow").click()
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Train").click()
    expect(page.get_by_text("digits-slow").first).to_be_visible()


def setup(page: Page) -> None:
    expect(page.get_by_role("button", name="Start training")).to_be_visible()


def ask(page: Page) -> None:
    button = page.get_by_role("button", name="Ask", exact=True)
    expect(button).to_be_enabled(timeout=SLOW)
    button.click()
    expect(page.get_by_text("tokens in").nth(1)).to_be_visible(timeout=SLOW)


def export(page: Page) -> None:
    page.get_by_role("button", name="Measure").click()
    page.wait_for_timeout(1000)
    expect(page.get_by_test_id("stSpinner")).to_have_count(0, timeout=SLOW)


def gallery(page: Page) -> None:
    expect(page.get_by_role("heading", name="Ready to use")).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("button", name="Open").nth(8)).to_be_visible(timeout=SLOW)


def runs(page: Page) -> None:
    expect(page.get_by_text("+++ digits")).to_be_visible(timeout=SLOW)


PAGES = {
    "build": ("?spec=specs/digits-smollm.yaml", build),
    "gallery": ("gallery", gallery),
    "setup": ("train?spec=specs/digits.yaml", setup),
    "train": ("train?run=digits", train),
    "try": ("try", ask),
    "export": ("export", export),
    "runs": ("runs", runs),
}


def picture(page: Page, path: Path) -> None:
    """The page in few colours, small enough for git."""
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    expect(page.get_by_test_id("stStatusWidget")).to_be_hidden(timeout=SLOW)  # nothing runs any more
    page.wait_for_timeout(2500)  # until charts and pictures stand still
    with tempfile.NamedTemporaryFile(suffix=".png") as raw:
        page.screenshot(path=raw.name)
        image = Image.open(raw.name).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def main(names: list[str]) -> None:
    """Draw all pages, or those that are named."""
    DOCS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "exports"
        prepare(workspace)
        server = Server(workspace, cwd=Path(folder)).start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for scheme in ("light", "dark"):
                for name in names or PAGES:
                    address, act = PAGES[name]
                    size = {**SIZE, "height": TALL.get(name, SIZE["height"])}
                    page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
                    page.set_default_timeout(SLOW)
                    page.goto(f"{server.url}/{address}")
                    act(page)
                    picture(page, DOCS / f"{name}-{scheme}.png")
                    page.close()
            browser.close()
        server.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
