"""A run is a process of its own: it is started, found again from its folder alone, stopped, resumed and deleted."""

import json
import time

import pytest

from assembler.errors import AssemblerError
from assembler.runs import Run, lines_of
from ui import training
from ui.jobs import Job, command_line
from ui.workspace import Workspace

SPEC = """\
assembler: 1
name: small
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_efficientnet, freeze: true}
  bridge: {type: projector.mlp, norm: true}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{photo} {question} {answer}"
    max_new_tokens: 6
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
data: {type: dataset.digits, options: {question: "?"}, columns: {photo: image, answer: word}}
stages:
  - {name: align, train: [bridge], steps: 60, batch: 2, lr: 1.0e-2, save_every: 20}
"""


def wait(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    found = Workspace(tmp_path)
    found.specs.mkdir()
    (found.specs / "small.yaml").write_text(SPEC)
    return found


def test_a_run_is_stopped_found_again_resumed_and_deleted(workspace):
    run = training.begin(workspace, workspace.specs / "small.yaml", "first", watch=20)
    with pytest.raises(AssemblerError, match="already"):
        training.begin(workspace, workspace.specs / "small.yaml", "first", watch=20)
    wait(lambda: len(training.curve(run)) >= 2)
    again = training.run_named(workspace, "first")  # as another server would
    assert training.status(again).state == "running" and training.status(again).left is not None
    with pytest.raises(AssemblerError, match="is running"):
        training.delete(again)
    training.job_of(again).stop()
    wait(lambda: not training.job_of(again).running)
    stopped = training.status(again)
    assert stopped.state == "stopped" and 2 <= stopped.step < 60 and stopped.steps == 60
    training.go_on(again)
    wait(lambda: not training.job_of(again).running)
    assert training.status(again).state == "done", training.job_of(again).said()
    assert [row["step"] for row in training.curve(again)] == list(range(1, 61))
    rows, answers = training.looks(again)
    assert len(rows) == 4 and [look["step"] for look in answers] == [20, 40, 60]
    training.delete(again)
    assert training.runs_in(workspace) == [] and list(workspace.runs.iterdir()) == []


def test_what_goes_wrong_is_the_last_word(workspace):
    broken = workspace.specs / "broken.yaml"
    broken.write_text(SPEC.replace("photo -> eyes,", ""))
    run = training.begin(workspace, broken, "broken", watch=0)
    wait(lambda: not training.job_of(run).running)
    found = training.status(run)
    assert found.state == "ended early" and "eyes" in found.word
    assert training.again(run) == training.arguments(broken, run, 0)  # it never began, so it is not resumed


def test_a_folder_that_never_ran_is_no_run(workspace):
    (workspace.runs / "notes").mkdir(parents=True)
    assert training.runs_in(workspace) == []
    assert training.status(Run(workspace.runs / "notes")).state == "ended early"
    assert Job(workspace.runs / "notes").said() == ""


def test_the_command_line_is_what_one_would_type(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command_line(["train", str(tmp_path / "my specs" / "a.yaml")]) == "assembler train 'my specs/a.yaml'"


def test_how_far_a_long_run_is_stands_at_the_end_of_its_metrics(tmp_path):
    lines = [json.dumps({"stage": "s", "step": i, "loss": 1 / i, "note": "é"}) for i in range(1, 5000)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*lines, '{"stage": "s", "st']), encoding="utf-8")
    whole = lines_of(path)
    assert [row["step"] for row in whole] == list(range(1, 5000))
    for tail in (1, 40, 100, 1000, 10**9):
        found = lines_of(path, tail)
        assert found == whole[len(whole) - len(found) :] and len(found) >= min(len(whole), tail // 100 - 1)
