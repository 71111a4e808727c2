"""What is on the page and not saved is kept, and two tabs do not overwrite each other."""

import pytest

from assembler.errors import AssemblerError
from ui import drafts
from ui.workspace import GALLERY, WORKSPACE, Workspace


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv(WORKSPACE, str(tmp_path / "work"))
    found = Workspace.current()
    found.specs.mkdir(parents=True)
    return found


@pytest.fixture
def path(workspace):
    path = workspace.specs / "a.yaml"
    path.write_bytes(b"assembler: 1\r\nname: a\r\n")
    return path


def test_a_draft_is_what_is_read_until_it_is_saved(path):
    first = drafts.read_draft(path)
    assert first.text == "assembler: 1\r\nname: a\r\n" and not first.unsaved
    kept = drafts.keep(path, "assembler: 1\nname: b\n", first.mark)
    assert drafts.read_draft(path) == kept and kept.unsaved
    assert path.read_bytes() == first.text.encode()
    drafts.save(path, kept.text)
    assert path.read_text() == kept.text and not drafts.read_draft(path).unsaved


def test_a_second_tab_does_not_overwrite_the_first(path):
    seen = drafts.read_draft(path).mark
    kept = drafts.keep(path, "name: first\n", seen)
    with pytest.raises(drafts.DraftMoved, match="another tab"):
        drafts.keep(path, "name: second\n", seen)
    assert drafts.read_draft(path).text == "name: first\n"
    assert drafts.keep(path, "name: second\n", kept.mark).text == "name: second\n"


def test_going_back_to_the_saved_text_leaves_no_draft(path, workspace):
    first = drafts.read_draft(path)
    kept = drafts.keep(path, "name: b\n", first.mark)
    drafts.keep(path, first.text, kept.mark)
    assert list(workspace.drafts.glob("*.yaml")) == []


def test_a_spec_without_a_file_has_a_draft_too():
    first = drafts.read_draft(None)
    assert first.text == drafts.EMPTY and not first.unsaved
    assert drafts.keep(None, "name: b\n", first.mark) == drafts.read_draft(None)


def test_the_gallery_is_not_written():
    with pytest.raises(AssemblerError, match="only read"):
        drafts.save(GALLERY / "digits.yaml", "name: b\n")


def test_what_is_no_spec_is_refused_in_a_sentence(path, tmp_path):
    path.write_bytes(b"\xff")
    with pytest.raises(AssemblerError, match="UTF-8"):
        drafts.read_draft(path)
    path.write_bytes(b"x" * 2_000_000)
    with pytest.raises(AssemblerError, match="bytes"):
        drafts.read_draft(path)
    with pytest.raises(AssemblerError, match="outside"):
        drafts.read_draft(tmp_path / "elsewhere.yaml")
