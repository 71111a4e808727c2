"""What runs a bundle on Kubernetes names the server's own routes and options, and installs all that serving imports."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest
import typer
import yaml
from packaging.requirements import Requirement

from assembler.cli import app
from assembler.deploy.kubernetes import DOCKERFILE, PORT, SERVING, write_kubernetes
from assembler.serving.app import create_app
from assembler.serving.limits import Limits
from assembler.serving.model import Model
from tests.serving.conftest import folders  # noqa: F401


def test_probes_ports_and_options_are_those_of_the_server(folders, tmp_path):  # noqa: F811
    write_kubernetes(folders["grows"], tmp_path / "out", "registry/bundle:1")
    deployment, service, policy = yaml.safe_load_all((tmp_path / "out" / "bundle.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    model = Model(folders["grows"], Limits())
    routes = {route.path for route in create_app(model, Limits()).routes}
    model.close()
    probes = [container[key]["httpGet"] for key in ("readinessProbe", "livenessProbe", "startupProbe")]
    assert {probe["path"] for probe in probes} <= routes and {probe["port"] for probe in probes} == {PORT}
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["ports"][0]["targetPort"] == PORT and policy["spec"]["egress"] == []
    options = {o for p in typer.main.get_command(app).commands["serve"].params for o in p.opts}
    assert set(re.findall(r'"(--[a-z]+)"', DOCKERFILE)) <= options
    assert (tmp_path / "out" / "bundle" / "manifest.json").is_file()


def closure(names) -> set[str]:
    """Distributions and, without extras, what they require."""
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        wanted = [Requirement(text) for text in requires(name) or []]
        left += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_serving_runs_with_what_the_image_installs_alone(folders):  # noqa: F811
    there = closure(SERVING) | {"multimodal-assembler"}
    owners = packages_distributions()
    absent = [name for name, by in owners.items() if not {re.sub(r"[-_.]+", "-", x).lower() for x in by} & there]
    code = f"""
import sys
absent = set({absent!r})
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in absent:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from pathlib import Path
from assembler.serving.app import create_app
from assembler.serving.engine import Request
from assembler.serving.limits import Limits
from assembler.serving.model import Model
import assembler.cli, assembler.serving.run
from assembler.readers import READERS
import h5py, soundfile, soxr, trimesh
from PIL import Image
model = Model(Path({str(folders["grows"])!r}), Limits())
create_app(model, Limits())
sample = {{"photo": Image.new("RGB", (9, 9)), "question": "?"}}
print(len(model.engine.submit(Request(sample, max_new_tokens=2)).text()) >= 0)
model.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "torch" in absent and done.stdout.strip() == "True", done.stderr


def test_the_command_says_what_it_needs():
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, ["deploy", "nowhere"])
    assert result.exit_code == 1 and "--triton DIR" in result.output
    result = CliRunner().invoke(app, ["deploy", "nowhere", "--triton", "there"])
    assert result.exit_code == 1 and "manifest.json" in result.output


@pytest.mark.parametrize(("args", "sentence"), [({}, "bundle=DIR"), ({"bundle": "x", "speed": "1"}, "speed")])
def test_ray_is_told_what_is_wrong(args, sentence, monkeypatch):
    import types

    from assembler.deploy.ray_serve import app as ray_app
    from assembler.errors import AssemblerError

    stand_in = types.ModuleType("ray")
    stand_in.serve = None
    monkeypatch.setitem(sys.modules, "ray", stand_in)
    with pytest.raises(AssemblerError, match=sentence):
        ray_app(args)
