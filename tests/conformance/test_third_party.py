"""A part in somebody else's package is listed and runs through the matrix, with no edit here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from assembler.errors import AssemblerError
from assembler.part import Part
from assembler.registry import register

ROOT = Path(__file__).parents[2]
ADAPTER, MODULE, PROJECTOR = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
"""What the README shows: an adapter, its torch module, and a projector."""
LAYERS = f"""
import torch


{MODULE}

class Mean(torch.nn.Module):
    def forward(self, x):
        return x.mean(1, keepdim=True)
"""


@pytest.fixture
def elsewhere(tmp_path) -> dict[str, str]:
    """The environment of a computer on which such a package is installed."""
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "parts.py").write_text(PROJECTOR + "\n\n" + ADAPTER)
    (tmp_path / "my_package" / "_layers.py").write_text(LAYERS)
    info = tmp_path / "my_package-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[assembler.parts]\nmine = my_package.parts\n")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def test_it_is_listed(elsewhere):
    command = [sys.executable, "-m", "assembler.cli", "parts", "--json"]
    done = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "y = mean_t(x)" in json.loads(done.stdout)["projector.mean"]["about"]


def test_it_runs_through_the_matrix(elsewhere):
    laws = [f"tests/conformance/{name}.py" for name in ("test_matrix", "test_adapters")]
    command = [sys.executable, "-m", "pytest", *laws, "-k", "projector.mean or scale_shift", "-n0", "-rp"]
    done = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for file, name, least in ((0, "projector.mean", 9), (0, "scale_shift", 11), (1, "scale_shift", 15)):
        assert sum(laws[file] in line and name in line for line in passed) >= least


@pytest.mark.parametrize(
    ("name", "doc", "sentence"),
    [
        ("Projector", "It is.", "not of the form"),
        ("projector.Big", "It is.", "not of the form"),
        ("projector.mlp", "It is.", "already taken by"),
        ("projector.silent", None, "no docstring"),
    ],
)
def test_a_bad_registration_is_refused(name, doc, sentence):
    from assembler.registry import parts

    before = parts()
    with pytest.raises(AssemblerError, match=sentence):
        register(type("Odd", (Part,), {"type": name, "__doc__": doc, "__module__": __name__}))
    assert parts() == before
