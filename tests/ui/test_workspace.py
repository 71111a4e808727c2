"""Nothing outside the workspace is read or written, whatever a name, an address or a spec says."""

from pathlib import Path

import pytest

from assembler.errors import AssemblerError
from assembler.spec import parse
from ui.workspace import GALLERY, Workspace

SPEC = """\
assembler: 1
nodes:
  photo: {{type: input.image, size: [32, 32]}}
  eyes: {{type: encoder.timm, model: test_vit, weights: "{weights}"}}
  talk: {{type: backbone.causal_lm, weights: random, prompt: "/etc/passwd ../ {{answer}}"}}
data: {{type: dataset.jsonl, options: {{path: "{path}", columns: {{a: text}}}}}}
"""


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    root = tmp_path / "work"
    (root / "specs").mkdir(parents=True)
    (tmp_path / "secret.safetensors").write_text("secret")
    (root / "specs" / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    return Workspace(root)


def escapes(workspace: Workspace, weights: str = "random", path: str = "rows.jsonl") -> list[str]:
    spec = parse(SPEC.format(weights=weights, path=path), workspace.specs / "a.yaml")
    return [problem.message for problem in workspace.escapes(spec)]


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".", "..", "a\0b", "/etc", "a" * 65, "-rf", ".hidden", "a\n"])
def test_a_name_is_a_name_and_no_path(workspace, name):
    with pytest.raises(AssemblerError, match="no name"):
        workspace.named(workspace.runs, name)


def test_a_path_is_followed_to_where_it_really_leads(workspace, tmp_path):
    assert workspace.inside(workspace.specs / "a.yaml") == workspace.specs / "a.yaml"
    for path in (tmp_path / "secret.safetensors", workspace.specs / "link.safetensors", workspace.root / ".." / "x"):
        with pytest.raises(AssemblerError, match="outside"):
            workspace.inside(path)
    (workspace.root / "runs").symlink_to(tmp_path)
    with pytest.raises(AssemblerError, match="outside"):
        workspace.named(workspace.runs, "new")


def test_the_gallery_is_read_and_not_written(workspace):
    assert workspace.inside(GALLERY / "digits.yaml").is_file()
    assert not workspace.may_write(GALLERY / "digits.yaml")
    assert Workspace(GALLERY.parent).may_write(GALLERY / "digits.yaml")  # the workspace is where the gallery stands


def test_the_folder_of_the_spec_that_the_server_was_started_with_is_let_in(workspace, tmp_path):
    opened = Workspace(workspace.root, tmp_path / "mine.yaml")
    assert opened.may_write(tmp_path / "mine.yaml")
    assert not opened.may_write(tmp_path.parent / "other.yaml")


@pytest.mark.parametrize(
    "weights",
    [
        "file:../../secret.safetensors", "file:link.safetensors", "file:/etc/hostname", "file:~/x.safetensors",
        " file:../../secret.safetensors", "file:a@/../../../secret.safetensors", "../../secret.safetensors",
    ],
)  # fmt: skip
def test_a_source_that_leads_outside_is_a_problem_and_is_not_looked_at(workspace, weights):
    (message,) = escapes(workspace, weights=weights)
    assert "nodes.eyes.weights" in message and "outside the workspace" in message
    graph = workspace.check(parse(SPEC.format(weights=weights, path="rows.jsonl"), workspace.specs / "a.yaml"))
    assert graph.parts == {} and [problem.message for problem in graph.problems] == [message]


@pytest.mark.parametrize("path", ["../../rows.jsonl", "/etc/passwd", "~/rows.jsonl", "link.safetensors"])
def test_a_dataset_that_leads_outside_is_a_problem(workspace, path):
    (message,) = escapes(workspace, path=path)
    assert message.startswith("data.options.path")


def test_what_stays_inside_is_none(workspace):
    assert escapes(workspace, weights="file:../data/model.safetensors", path="../data/rows.jsonl") == []
    assert escapes(workspace, weights="hf:timm/mobilenetv2_100.ra_in1k") == []


def test_every_spec_of_the_gallery_stays_inside(workspace):
    for path in Path(GALLERY).glob("*.yaml"):
        assert list(workspace.escapes(parse(path.read_text(), path))) == [], path.name
