"""A spec that is saved into another folder leads to the same files from there."""

from pathlib import Path

import pytest

from assembler.check import check
from assembler.spec import parse, read
from ui.document import document_of
from ui.editor.documents import Documents
from ui.editor.messages import Request
from ui.moving import moved
from ui.views import gallery
from ui.views.build import documents
from ui.workspace import GALLERY, WORKSPACE, Workspace, paths_in

TEXT = """\
assembler: 1
name: paths
nodes:
  a: {type: encoder.timm, model: test_vit, weights: "file:weights/a.safetensors"}   # beside it
  b: {type: encoder.timm, model: test_vit, weights: "hf:org/name"}
  c: {type: input.text, note: "one/two.txt"}
data: {type: dataset.jsonl, options: {path: ../rows.jsonl, columns: {path: text}}}
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    documents.clear()
    return Workspace.current()


def leads_to(graph: dict, folder: Path) -> list[Path]:
    return [(folder / path).resolve() for _, text, path in paths_in(graph) if not text.startswith(("hf:", "pypi:"))]


def test_what_is_named_beside_a_spec_is_found_from_elsewhere(tmp_path):
    old, new = tmp_path / "a" / "b", tmp_path / "c"
    graph = document_of(TEXT)["graph"]
    there = moved(graph, old, new)
    assert leads_to(there, new) == leads_to(graph, old)
    assert there["nodes"]["a"]["weights"] == "file:../a/b/weights/a.safetensors"
    assert (there["nodes"]["b"], there["nodes"]["c"]) == (graph["nodes"]["b"], graph["nodes"]["c"])
    assert moved(there, new, old) == moved(graph, old, old) == graph


def test_a_pypi_source_of_a_dataset_is_no_path(tmp_path):
    text = 'assembler: 1\nnodes: {}\ndata: {type: dataset.h5ad, options: {path: "pypi:anndata==1/a.h5ad"}}\n'
    graph = document_of(text)["graph"]
    assert moved(graph, tmp_path / "a", tmp_path / "b") is graph


@pytest.mark.parametrize("way", ["save as", "copy"])
def test_a_spec_of_the_gallery_saved_in_the_workspace_still_finds_its_example(workspace, way):
    path = GALLERY / "adaptformer.yaml"
    assert leads_to(document_of(path.read_text())["graph"], path.parent)
    if way == "copy":
        saved, answer = gallery.copy(path, "mine"), {}
    else:
        store = Documents()
        now = store.answer(store.open(path), Request(id="1", name="save", text=None, path="mine"))
        saved, answer = now.path, now.answers["1"]
        assert answer["doc"] == now.document and not store.place(now)["dirty"]
    spec = read(saved)
    assert check(spec).problems == workspace.check(spec).problems == []
    mine, theirs = spec.path.read_text().splitlines(), path.read_text().splitlines()
    assert [line for line in mine if "path:" not in line] == [line for line in theirs if "path:" not in line]


def test_a_spec_without_a_file_is_saved_as_it_is(workspace):
    store = Documents()
    held = store.open(None)
    now = store.answer(held, Request(id="1", name="save", text=None, path="mine"))
    assert "doc" not in now.answers["1"] and parse(now.path.read_text(), now.path).problems == []
