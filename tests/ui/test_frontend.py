"""The editor's TypeScript: its types, its own tests, and that the committed bundle is what the source builds to."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ui.conftest import ROOT

FRONTEND = ROOT / "ui" / "frontend"
ASSETS = ROOT / "ui" / "editor" / "assets"

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None and os.environ.get("EDITOR_REBUILT") != "required",
    reason="node is absent: the editor's bundle is not rebuilt",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with exactly the packages of the lock file, so that what lies beside it cannot matter."""
    folder = tmp_path_factory.mktemp("editor") / "frontend"
    shutil.copytree(FRONTEND, folder, ignore=shutil.ignore_patterns("node_modules"))
    run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return folder


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_types_and_laws_hold(source: Path) -> None:
    run(source, "npm", "run", "check")
    run(source, "npm", "test")


def test_the_committed_bundle_is_what_the_source_builds_to(source: Path) -> None:
    run(source, "npm", "run", "build")
    built = source.parent / "editor" / "assets"
    names = {path.name for path in ASSETS.iterdir()}
    assert {path.name for path in built.iterdir()} == names, "run: make editor"
    for name in names:
        assert (built / name).read_bytes() == (ASSETS / name).read_bytes(), f"{name}: run: make editor"


def test_what_is_bundled_is_credited() -> None:
    text = (ASSETS / "THIRD_PARTY_NOTICES.txt").read_text(encoding="utf-8")
    for package in ("react ", "react-dom ", "@xyflow/react ", "@dagrejs/dagre ", "yaml ", "zustand "):
        assert f"\n{package}" in text
