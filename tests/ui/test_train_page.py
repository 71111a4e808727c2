"""The form of a new run changes the very document of the canvas, and says what it cannot take."""

import pytest
from streamlit.testing.v1 import AppTest

from assembler.spec import read
from tests.ui.test_jobs import SPEC
from ui.document import text_of
from ui.editor.messages import Sent, SentDocument
from ui.jobs import Job
from ui.views.build import documents
from ui.workspace import WORKSPACE, Workspace

TEXT = SPEC.replace("stages:\n", "# how it learns\nstages:\n")


def train_page() -> None:
    from ui.views.train import render

    render()


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv(WORKSPACE, str(tmp_path / "work"))
    documents.clear()
    found = Workspace.current()
    found.specs.mkdir(parents=True)
    (found.specs / "small.yaml").write_text(TEXT)
    return found


def page(key: str = "specs/small.yaml") -> AppTest:
    """The Train page on a spec."""
    found = AppTest.from_function(train_page, default_timeout=30)
    found.query_params["spec"] = key
    return shown(found.run())


def shown(at: AppTest) -> AppTest:
    assert not at.exception, [x.value for x in at.exception]
    return at


def text() -> str:
    """What the canvas would show."""
    (held,) = documents().held.values()
    return text_of(held.document)


def start(at: AppTest):
    return next(button for button in at.button if button.label == "Start training")


def test_a_setting_is_changed_and_nothing_else(workspace):
    at = page()
    shown(at.text_input(key="stage-0-steps").set_value("33").run())
    assert text() == TEXT.replace("steps: 60", "steps: 33")
    shown(at.text_input(key="stage-0-lr").set_value("1e-4").run())
    assert text() == TEXT.replace("steps: 60", "steps: 33").replace("1.0e-2", "0.0001")
    assert (workspace.specs / "small.yaml").read_text() == TEXT  # not saved yet
    assert page().text_input(key="stage-0-steps").value == "33"  # another browser, a reload


def test_what_is_no_number_is_refused_in_words_and_changes_nothing(workspace):
    at = page()
    shown(at.text_input(key="stage-0-steps").set_value("many").run())
    assert "whole number" in at.error[0].value and at.text_input(key="stage-0-steps").value == "60"
    assert text() == TEXT


def test_a_number_that_does_not_fit_is_a_problem_and_nothing_starts(workspace):
    at = page()
    shown(at.text_input(key="stage-0-steps").set_value("-3").run())
    assert any("greater than or equal to 1" in item.value for item in at.text)
    assert start(at).disabled
    shown(at.text_input(key="stage-0-steps").set_value("3").run())
    assert not start(at).disabled


def test_lora_is_attached_from_the_table(workspace):
    at = page()
    cell = next(group for group in at.get("button_group") if group.key == "cell-0-talk")
    shown(cell.set_value("LoRA").run())
    (held,) = documents().held.values()
    assert held.document["graph"]["adapters"] == {"talk_lora": {"type": "adapter.lora", "host": "talk"}}
    assert held.document["graph"]["stages"][0]["train"] == ["bridge", "talk_lora"]


def test_a_dataset_is_chosen_and_its_only_picture_feeds_the_only_picture_input(workspace):
    (workspace.specs / "small.yaml").write_text("".join(x for x in TEXT.splitlines(True) if not x.startswith("data:")))
    at = page()
    assert start(at).disabled
    shown(at.selectbox(key="data-type").set_value("dataset.digits").run())
    assert at.selectbox(key="column-photo").value == "image"
    shown(at.selectbox(key="column-answer").set_value("word").run())
    shown(at.slider(key="held-out").set_value(10).run())
    (held,) = documents().held.values()
    columns = {"photo": "image", "answer": "word"}
    assert held.document["graph"]["data"] == {"type": "dataset.digits", "columns": columns, "held_out": 0.1}
    assert not start(at).disabled


def test_stages_come_and_go(workspace):
    at = page()
    shown(next(button for button in at.button if button.label == "Add a stage").click().run())
    assert [box.value for box in at.text_input if box.label == "Stage"] == ["align", "tune"]
    shown(at.button(key="remove-0").click().run())
    assert [box.value for box in at.text_input if box.label == "Stage"] == ["tune"]


def test_a_change_of_another_tab_is_not_overwritten(workspace):
    page()
    (held,) = documents().held.values()
    from ui.editing import Opened

    mine = Opened(documents(), held, held.version, documents().check(held).graph, [])
    graph = {**held.document["graph"], "name": "theirs"}
    theirs = SentDocument(base=held.document["base"], graph=graph)
    sent = Sent(tab="other", id=held.id, parent=held.version, rev=1, document=theirs, requests=[])
    assert documents().accept(sent) is None
    with pytest.raises(Exception, match="another tab"):
        mine.keep({**mine.document, "stages": []})
    assert held.document["graph"]["name"] == "theirs" and held.document["graph"]["stages"]


@pytest.mark.parametrize(
    "broken", ["nodes: [a]", "stages: 3", "stages: [3]", "stages: [{train: 3}]", "data: {options: 3}"]
)
def test_a_spec_with_broken_sections_is_shown_with_its_problems(workspace, broken):
    (workspace.specs / "small.yaml").write_text(f"assembler: 1\n{broken}\n")
    page()


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands of jobs, which are not started."""
    found: list[list[str]] = []
    monkeypatch.setattr(Job, "start", lambda self, arguments: found.append(list(arguments)))
    return found


def test_starting_saves_what_is_on_the_page_first(workspace, started):
    at = page()
    shown(at.text_input(key="stage-0-steps").set_value("33").run())
    start(at).click().run()
    path = workspace.specs / "small.yaml"
    assert read(path).document.stages[0].steps == 33 and "# how it learns" in path.read_text()
    run = str(workspace.runs / "small-1")
    assert started == [["train", str(path), "--run", run, "--watch", "5"]]


def test_starting_a_changed_spec_of_the_gallery_saves_a_copy(workspace, started):
    at = page("gallery/digits.yaml")
    shown(at.text_input(key="stage-0-steps").set_value("33").run())
    start(at).click().run()
    assert started[0][1] == str(workspace.specs / "digits.yaml")
    assert read(workspace.specs / "digits.yaml").document.stages[0].steps == 33


def test_whose_losses_count_is_chosen_where_there_are_several(workspace):
    assert not [box for box in page().multiselect if box.label == "Losses of"]
    two = TEXT.replace("edges: [", "  kind: {type: head.classifier, classes: 10}\nedges: [eyes -> kind, ")
    (workspace.specs / "two.yaml").write_text(two)
    at = page("specs/two.yaml")
    box = at.multiselect(key="stage-0-objectives")
    assert sorted(box.value) == ["kind", "talk"]
    shown(box.set_value(["talk"]).run())
    held = documents().open(workspace.specs / "two.yaml")
    assert held.document["graph"]["stages"][0]["objectives"] == ["talk"]
