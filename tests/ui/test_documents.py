"""What the server holds: no tab's edits vanish, whatever happens to the others, the file or the server."""

from pathlib import Path
from typing import Any

import pytest

from assembler.check import check
from assembler.errors import AssemblerError
from assembler.spec import read
from ui.document import text_of
from ui.editor.documents import Documents, Held
from ui.editor.messages import Request, Sent

GALLERY = sorted((Path(__file__).resolve().parents[2] / "exports" / "gallery").glob("*.yaml"))
SPEC = "# mine\nassembler: 1\nnodes:\n  photo: {type: input.image, size: [32, 32]}   # seen\nedges: []\n"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASSEMBLER_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("ASSEMBLER_SPEC", raising=False)
    found = tmp_path / "specs" / "one.yaml"
    found.parent.mkdir()
    found.write_text(SPEC)
    return found


def sent(held: Held, tab: str, rev: int, name: str, **more: Any) -> Sent:
    """A tab's message: the document with another name."""
    graph = {**held.document["graph"], "name": name}
    document = {"base": held.document["base"], "graph": graph}
    parent = more.pop("parent", held.version)
    return Sent.model_validate({"tab": tab, "id": held.id, "parent": parent, "rev": rev, "document": document, **more})


def test_every_gesture_is_on_disk_and_survives_the_server(path: Path) -> None:
    store = Documents()
    held = store.open(path)
    assert store.accept(sent(held, "a", 1, "first")) is None
    assert store.accept(sent(held, "a", 2, "second", parent=0)) is None, "a tab need not wait for the answer"
    again = Documents().open(path)
    assert (again.tab, again.rev, again.version) == ("a", 2, held.version)
    assert again.document["graph"]["name"] == "second" and store.place(again)["dirty"]
    assert path.read_text() == SPEC, "the file changes when it is saved"


def test_a_tab_that_was_overtaken_is_told_and_nothing_is_lost(path: Path) -> None:
    store = Documents()
    held = store.open(path)
    seen = held.version
    assert store.accept(sent(held, "a", 1, "of a")) is None
    conflict = store.accept(sent(held, "b", 1, "of b", parent=seen))
    assert conflict is not None and conflict["document"]["graph"]["name"] == "of a"
    assert held.document["graph"]["name"] == "of a"
    assert store.accept(sent(held, "b", 2, "of b", parent=conflict["version"], force=True)) is None
    assert held.document["graph"]["name"] == "of b"
    assert store.accept(sent(held, "a", 2, "of a", parent=seen)) is not None, "now the other one is told"


def test_old_and_repeated_messages_change_nothing(path: Path) -> None:
    store = Documents()
    held = store.open(path)
    store.accept(sent(held, "a", 5, "new"))
    version = held.version
    assert store.accept(sent(held, "a", 4, "old")) is None
    assert held.document["graph"]["name"] == "new" and held.version == version


def test_a_file_that_changes_is_followed_where_nothing_is_unsaved(path: Path) -> None:
    store = Documents()
    held = store.open(path)
    seen = held.version
    path.write_text(SPEC + "seed: 3\n")
    assert store.open(path).version > seen
    assert text_of(held.document) == SPEC + "seed: 3\n"
    assert store.accept(sent(held, "a", 1, "x", parent=seen)) is not None
    store.accept(sent(held, "a", 2, "mine"))
    path.write_text(SPEC)
    assert store.open(path).document["graph"]["name"] == "mine"
    assert Documents().open(path).document["graph"]["name"] == "mine"


def test_saving_writes_what_validate_reads(path: Path) -> None:
    store = Documents()
    held = store.open(path)
    store.accept(sent(held, "a", 1, "saved"))
    request = Request(id="1", name="save")
    assert store.answer(held, request) is held
    assert path.read_text().startswith("# mine\nassembler: 1\nname: saved\nnodes:\n") and "# seen" in path.read_text()
    assert not store.place(store.open(path))["dirty"] and not check(read(path)).problems
    path.write_text(SPEC)
    store.answer(held, request)
    assert path.read_text() == SPEC, "a repeated request is answered, not done again"


def test_saving_under_a_name_gives_a_document_of_that_name(path: Path) -> None:
    store = Documents()
    held = store.open(None)
    store.accept(sent(held, "a", 1, "fresh"))
    now = store.answer(held, Request(id="1", name="save", path="fresh"))
    assert now.path == path.parent / "fresh.yaml" and now.document == held.document and (now.tab, now.rev) == ("a", 1)
    assert store.open(None).document["graph"]["name"] == "model", "the empty canvas is empty again"


@pytest.mark.parametrize("name", ["one", "../out", "a/b", "", ".hidden", "x" * 70])
def test_saving_keeps_to_the_workspace_and_overwrites_nothing(path: Path, name: str) -> None:
    store = Documents()
    held = store.open(None)
    assert store.answer(held, Request(id="1", name="save", path=name)) is held
    assert held.answers["1"]["error"]
    assert path.read_text() == SPEC and [p.name for p in path.parent.iterdir()] == ["one.yaml"]


def test_text_is_read_or_refused_with_a_place(path: Path) -> None:
    store = Documents()
    held = store.open(path)
    store.answer(held, Request(id="1", name="read", text="assembler: 1\nnodes: {a: {type: input.text}}\n"))
    assert held.answers["1"]["doc"]["graph"]["nodes"] == {"a": {"type": "input.text"}}
    store.answer(held, Request(id="2", name="read", text="a: [\n"))
    assert held.answers["2"]["problems"][0]["line"] == 2
    store.answer(held, Request(id="3", name="discard"))
    assert held.answers["3"]["doc"]["base"] == SPEC


def test_a_path_that_leaves_the_workspace_is_a_problem_and_not_read(path: Path) -> None:
    store = Documents()
    held = store.open(path)
    graph = {
        **held.document["graph"],
        "nodes": {"e": {"type": "encoder.timm", "model": "test_vit", "weights": "file:/etc"}},
    }
    document = {"base": held.document["base"], "graph": graph}
    store.accept(
        Sent.model_validate({"tab": "a", "id": held.id, "parent": held.version, "rev": 1, "document": document})
    )
    problems = store.check(held).problems
    assert len(problems) == 1 and "outside the workspace" in problems[0].message and problems[0].place.line == 4


@pytest.mark.parametrize("spec", GALLERY, ids=lambda spec: spec.stem)
def test_a_gallery_spec_opens_without_a_false_problem(path: Path, spec: Path) -> None:
    store = Documents()
    held = store.open(spec)
    assert [p.message for p in store.check(held).problems] == [p.message for p in check(read(spec)).problems] == []
    assert held.text() == spec.read_text(encoding="utf-8")


def test_a_file_that_is_no_spec_is_a_sentence(path: Path) -> None:
    path.write_text("- a\n")
    with pytest.raises(AssemblerError, match="mapping"):
        Documents().open(path)
