"""LDA over running sums, and First Session Adaptation around it."""

import json

import torch
from typer.testing import CliRunner

from assembler.cli import app
from assembler.runs import load_run
from assembler.spec import read
from assembler.train import train
from components.heads._lda import LdaHead

FSA = """\
assembler: 1
name: fsa
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_efficientnet, output: pooled, freeze: true}
  name: {type: head.classifier, classes: 10}
  sort: {type: head.lda, classes: 10}
edges: [photo -> eyes, eyes -> name, eyes -> sort]
adapters:
  film: {type: adapter.film, host: eyes, after: depthwise}
data: {type: dataset.digits, columns: {photo: image, label: label}}
stages:
  - {name: first, train: [film, name], objectives: [name], steps: 6, batch: 16, lr: 1.0e-2}
  - {name: sessions, train: [sort], objectives: [sort], steps: 8, batch: 16, lr: 1.0e-2}
"""


def blobs(classes: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points around one centre a class, stretched alike."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(each)
    stretch = torch.randn(6, 6, generator=generator)
    centres = 4 * torch.randn(classes, 6, generator=generator)
    return centres[labels] + torch.randn(len(labels), 6, generator=generator) @ stretch, labels


def test_sessions_of_new_classes_one_after_the_other_are_all_classes_at_once():
    x, labels = blobs(5, 40)
    at_once, sessions = LdaHead(6, 7, eps=0.1), LdaHead(6, 7, eps=0.1)
    at_once.train()(labels, x)
    for group in ([0, 3], [1], [2, 4], [0, 3], [1], [2, 4]):  # everything twice, which weighs nothing anew
        chosen = torch.isin(labels, torch.tensor(group))
        sessions.train()(labels[chosen], x[chosen])
    torch.testing.assert_close(sessions.weight, at_once.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(sessions.bias, at_once.bias)
    told = sessions.eval()(None, x)["logits"].argmax(-1)
    assert (told == labels).float().mean() > 0.95 and told.max() < 5  # classes 5 and 6 were never seen
    assert torch.equal(sessions(None, x)["logits"], sessions(labels, x)["logits"])  # it counts in training alone


def test_it_is_the_rule_of_bayes_for_one_covariance():
    x, labels = blobs(3, 50)
    head = LdaHead(6, 3, eps=1e-6)
    head.train()(labels, x)
    means = torch.stack([x[labels == c].mean(0) for c in range(3)])
    away = x - means[labels]
    precision = torch.linalg.inv(away.T @ away / len(x))
    distance = torch.einsum("bci,ij,bcj->bc", x[:, None] - means, precision, x[:, None] - means)
    wanted = (-distance / 2).log_softmax(-1)
    torch.testing.assert_close(head.eval()(None, x)["logits"].log_softmax(-1), wanted, rtol=1e-3, atol=1e-3)


def test_the_first_session_moves_the_body_and_the_others_only_count(tmp_path):
    (tmp_path / "fsa.yaml").write_text(FSA)
    train(read(tmp_path / "fsa.yaml"), tmp_path / "run")
    _, assembly = load_run(tmp_path / "run")
    assert assembly.nodes["sort"].count.sum() == 8 * 16
    told = CliRunner().invoke(app, ["adapters", "moved", str(tmp_path / "run"), "eyes", "--rows", "20", "--json"])
    assert told.exit_code == 0, told.stderr
    report = json.loads(told.stdout)
    assert report["rows"] == 20 and 1e-6 < report["distance"] <= report["most"] <= 2
    wrong = CliRunner().invoke(app, ["adapters", "moved", str(tmp_path / "run"), "sort"])
    assert wrong.exit_code == 1 and "name one of eyes" in wrong.stderr.replace("\n", " ")
