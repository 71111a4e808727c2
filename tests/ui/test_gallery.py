"""Every spec of the gallery opens, shows no false problem, and has a picture and a sentence."""

from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest

from assembler.errors import AssemblerError
from assembler.spec import Document, read
from ui.document import document_of, text_of
from ui.pictures import svg
from ui.views import gallery
from ui.views.build import documents
from ui.workspace import WORKSPACE, Workspace


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv(WORKSPACE, str(tmp_path))
    documents.clear()
    return Workspace.current()


@pytest.mark.parametrize("path", gallery.ready(), ids=lambda path: path.stem)
def test_it_opens_without_a_problem_and_has_a_sentence(path, workspace):
    spec = read(path)
    assert [problem.render(path.name) for problem in workspace.check(spec).problems] == []
    text = path.read_text()
    assert text_of(document_of(text)) == text
    assert 20 < len(gallery.sentence(path)) < 300


def test_the_page_shows_them_all(workspace):
    def page() -> None:
        from ui.views.gallery import render

        render()

    at = AppTest.from_function(page, default_timeout=30).run()
    assert not at.exception
    shown = " ".join(item.value.replace("\\", "") for item in at.markdown)
    assert all(path.stem in shown for path in gallery.ready())


def test_a_copy_says_the_same_under_its_own_name(workspace):
    path = next(path for path in gallery.ready() if path.stem == "digits")
    assert gallery.copy(path, "mine").read_text() == path.read_text()
    with pytest.raises(AssemblerError, match="already"):
        gallery.copy(path, "mine")
    with pytest.raises(AssemblerError, match="no name"):
        gallery.copy(path, "../mine")


def test_a_picture_is_a_picture_whatever_the_names_are():
    nodes = {'<script>alert("&")</script>': {"type": "input.image"}, "b": {"type": "<b>"}, "c": {}}
    edges = ["b -> c", "c -> b", "b -> nowhere"]
    root = ElementTree.fromstring(svg(Document(assembler=1, nodes=nodes, edges=edges)))
    texts = [item.text for item in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts) == 3 and texts[0].startswith("<script>")
    assert {item.tag.partition("}")[2] for item in root.iter()} == {"svg", "path", "rect", "text"}
