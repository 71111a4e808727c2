"""A part in somebody else's package is listed and runs through the matrix, with no edit here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assembler.errors import AssemblerError
from assembler.part import Part
from assembler.registry import register

ROOT = Path(__file__).parents[2]
CODE = '''
"""Scale every token."""

from assembler.part import Part
from assembler.registry import register
from assembler.values import value


@register
class Scale(Part):
    """y = s * x with one learned s: tokens [B, T, D] -> tokens [B, T, D].

    Parameters: 1.
    """

    type = "projector.scale"
    accepts = {"in": ("tokens",)}

    @classmethod
    def examples(cls):
        nodes = {
            "photo": {"type": "input.image", "size": [32, 32]},
            "eyes": {"type": "encoder.timm", "model": "test_efficientnet"},
            "part": {"type": cls.type},
        }
        return [({"nodes": nodes, "edges": ["photo -> eyes", "eyes -> part"]}, 1)]

    def shape(self, inputs, want, base):
        return value("tokens", tokens=inputs["in"]["tokens"], width=inputs["in"]["width"])

    def build(self, inputs, output, base):
        import torch

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.s = torch.nn.Parameter(torch.randn(1))

            def forward(self, x):
                return self.s * x

        return Module()
'''


@pytest.fixture
def elsewhere(tmp_path) -> dict[str, str]:
    """The environment of a computer on which such a package is installed."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "__init__.py").write_text("")
    (tmp_path / "elsewhere" / "scale.py").write_text(CODE)
    info = tmp_path / "elsewhere-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[assembler.parts]\nmine = elsewhere\n")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def test_it_is_listed(elsewhere):
    command = [sys.executable, "-m", "assembler.cli", "parts", "--json"]
    done = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "y = s * x" in json.loads(done.stdout)["projector.scale"]["about"]


def test_it_runs_through_the_matrix(elsewhere):
    command = [sys.executable, "-m", "pytest", "tests/conformance/test_matrix.py", "-k", "projector.scale", "-n0"]
    done = subprocess.run(command, env=elsewhere, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(done.stdout.rsplit(" passed", 1)[0].rsplit(None, 1)[-1]) >= 9


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
