"""Metrics against their definitions and the libraries that are known for them, and a run that is scored by them."""

import json

import jiwer
import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import pearsonr
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from assembler.cli import app
from assembler.metrics import DEFAULTS, METRICS, score, usual_answer

words = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=5).map(" ".join)
pairs_of = st.lists(st.tuples(words, words), min_size=1, max_size=8)


def value(name: str, given_, wanted, usual="") -> float:
    return score(METRICS[name], given_, wanted, usual)["value"]


@settings(max_examples=15, deadline=None)
@given(pairs_of)
def test_word_and_character_errors_are_jiwers(pairs):
    heard, said = map(list, zip(*pairs, strict=True))
    assert value("wer", heard, said) == pytest.approx(jiwer.wer(said, heard))
    assert value("cer", heard, said) == pytest.approx(jiwer.cer(said, heard))


@settings(max_examples=15, deadline=None)
@given(pairs_of)
def test_bleu_and_chrf_are_sacrebleus_of_the_corpus(pairs):
    told, said = map(list, zip(*pairs, strict=True))
    assert value("bleu", told, said) == pytest.approx(sacrebleu.corpus_bleu(told, [said]).score)
    assert value("chrf", told, said) == pytest.approx(sacrebleu.corpus_chrf(told, [said]).score)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_accuracy_and_macro_f1_are_scikit_learns(pairs):
    told, right = map(list, zip(*pairs, strict=True))
    assert value("accuracy", told, right) == pytest.approx(np.mean(np.array(told) == right))
    assert value("macro_f1", told, right) == pytest.approx(f1_score(right, told, average="macro"))


def test_pearson_is_scipys_and_zero_where_nothing_varies():
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert value("pearson", x, y, 0.0) == pytest.approx(pearsonr(x, y).statistic)
    assert value("pearson", [1.0] * 30, y, 0.0) == 0.0
    assert value("mae", x, y, 0.0) == pytest.approx(np.abs(x - y).mean())


def test_exact_match_is_blind_to_case_and_outer_space_alone():
    assert value("exact_match", [" Seven", "six", "six"], ["seven", "seven", "s ix"]) == pytest.approx(1 / 3)


def test_recall_counts_the_right_half_among_the_nearest_and_knows_equal_halves():
    eye = np.eye(4)
    right = [(eye[i], eye[i]) for i in range(4)]
    swapped = [(eye[i], eye[[1, 0, 2, 3][i]]) for i in range(4)]
    names = [(f"row {i}", f"text {i}") for i in range(4)]
    assert value("recall@1", right, names) == 1.0
    assert value("recall@1", swapped, names) == 0.5
    assert score(METRICS["recall@1"], right, names, None)["baseline"] == pytest.approx(1 / 4)
    alike = [(np.ones(4), np.ones(4))] * 4
    assert value("recall@1", alike, names) == 0.0  # of equal likeness the wrong ones come first
    same = [(f"row {i}", "one text") for i in range(4)]
    assert score(METRICS["recall@1"], alike, same, None)["baseline"] == pytest.approx((1 / 4 + 1) / 2)


def test_the_interval_holds_the_value_is_the_same_each_time_and_shrinks_with_samples():
    draw = np.random.default_rng(0)
    right = draw.integers(0, 2, 400).tolist()
    told = [r if draw.random() < 0.8 else 1 - r for r in right]
    few, many = (score(METRICS["accuracy"], told[:n], right[:n], 0) for n in (40, 400))
    assert few == score(METRICS["accuracy"], told[:40], right[:40], 0)
    for found in (few, many):
        assert found["low"] <= found["value"] <= found["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_the_baseline_answers_what_was_usual_where_it_learned():
    assert usual_answer("text", ["a", "b", "b"]) == "b" and usual_answer("score", [1.0, 2.0]) == 1.5
    assert score(METRICS["exact_match"], ["a"], ["b"], "b")["baseline"] == 1.0
    assert set(DEFAULTS) == {metric.answers for metric in METRICS.values()}


SPEC = """
assembler: 1
name: bright
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_efficientnet, output: pooled, freeze: true}
  grade: {type: head.regressor, scores: [light, dark]}
  name: {type: head.classifier, classes: 2, weight: 0.5}
edges: [photo -> eyes, eyes -> grade, eyes -> name]
data:
  type: dataset.jsonl
  options: {path: rows.jsonl, columns: {photo: image, light: score, dark: score, label: label}}
  held_out: 0.25
stages: [{name: learn, train: [grade, name], steps: 60, batch: 8, lr: 0.05}]
"""


def test_a_run_with_two_heads_is_trained_on_both_and_each_is_scored(tmp_path):
    draw, lines = np.random.default_rng(0), []
    for i in range(40):
        light = float(draw.random())
        pixels = np.clip(light * 255 + draw.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append({"photo": f"{i}.png", "light": light, "dark": 1 - light, "label": int(light > 0.5)})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "spec.yaml").write_text(SPEC)
    run = str(tmp_path / "run")
    done = CliRunner().invoke(app, ["train", str(tmp_path / "spec.yaml"), "--run", run])
    assert done.exit_code == 0, done.output
    reports = {
        node: json.loads(CliRunner().invoke(app, ["eval", run, "--node", node, "--json"]).output)
        for node in ("grade", "name")
    }
    grade, name = reports["grade"], reports["name"]
    assert grade["n"] == name["n"] > 5
    assert grade["pearson.light"] > 0.8 and grade["pearson.dark"] > 0.8
    assert grade["mae.light"] < grade["baselines"]["mae.light"]
    assert name["accuracy"] > name["baselines"]["accuracy"]
    low, high = name["intervals"]["accuracy"]
    assert low <= name["accuracy"] <= high
