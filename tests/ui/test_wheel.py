"""The page from an installed wheel: no source beside it, no node anywhere, and the gallery comes along."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.ui.canvas import Canvas
from tests.ui.conftest import ROOT, Server

KEPT_OUT = shutil.ignore_patterns(".*", "node_modules", "tests", "benchmarks", "build", "*.egg-info", "__pycache__")


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass
class Installed:
    """A wheel, and an environment into which it is installed."""

    wheel: Path
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own; what it depends on is seen from this one, whose own copy is not."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=lambda place, names: {*KEPT_OUT(place, names)} - {".streamlit"} | _made(place, names)
    )
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ".", cwd=source)
    shutil.rmtree(source)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    found = Installed(next(folder.glob("*.whl")), folder / "env")
    run(*pip, "--python", found.python, "install", "--no-deps", "--no-index", found.wheel, cwd=folder)
    (packages,) = (found.folder / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return found


def _made(place: str, names: list[str]) -> set[str]:
    """What users made in `exports` is no part of a wheel."""
    return {name for name in names if name != "gallery"} if Path(place) == ROOT / "exports" else set()


def test_what_is_in_it(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = set(wheel.namelist())
    for folder in ("ui/editor/assets", "exports/gallery"):
        for path in (ROOT / folder).rglob("*"):
            assert path.is_dir() or path.relative_to(ROOT).as_posix() in names
    assert "ui/.streamlit/config.toml" in names
    assert not [name for name in names if "node_modules" in name or name.endswith((".ts", ".tsx"))]


@pytest.fixture
def server(installed: Installed, tmp_path: Path) -> Iterator[Server]:
    """The page as the wheel starts it, in an empty folder and without node on the path."""
    environment = {"PYTHONPATH": "", "PATH": str(installed.folder / "bin")}
    started = Server(tmp_path / "work", environment=environment, cwd=tmp_path, python=str(installed.python)).start()
    yield started
    started.stop()


def test_it_draws_checks_and_has_the_gallery(server: Server, page: Page, installed: Installed) -> None:
    canvas = Canvas(page, f"{server.url}/?spec=gallery/adaptformer.yaml")
    canvas.checked()
    canvas.expect_count("nodes", 3)
    canvas.expect_count("problems", 0)
    canvas.drop_part("encoder.timm", canvas.at(0.3, 0.8))
    canvas.expect_count("nodes", 4)
    where = subprocess.run(
        [installed.python, "-c", "import ui; print(ui.__file__)"],
        cwd=server.cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(installed.folder))
    page.get_by_role("link", name="Gallery").click()
    expect(page.locator('[class*="st-key-card-gallery-"]')).to_have_count(
        len(list((ROOT / "exports/gallery").glob("*.yaml")))
    )
