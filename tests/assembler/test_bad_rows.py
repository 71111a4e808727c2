"""Rows that cannot be read end a run, or with `on_bad: skip` are left out, counted and named."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from assembler.batches import split
from assembler.check import check
from assembler.errors import AssemblerError
from assembler.runs import load_run
from assembler.spec import parse
from assembler.train import train
from tests.assembler.conftest import TWO_STAGES

DATA = "data: {type: dataset.jsonl, options: {path: rows.jsonl, columns: {image: image, word: text}}, "
BAD = {3: '{"image": "3.png"', 5: '{"image": "5.png", "word": 5}', 7: '{"image": "7.png", "word": "seven"}'}


@pytest.fixture
def folder(tmp_path):
    """Twelve rows: one no JSON, one without a word, one with a broken picture."""
    lines = []
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(BAD.get(number) or json.dumps({"image": f"{number}.png", "word": f"word {number}"}))
    (tmp_path / "7.png").write_bytes(b"broken")
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path


def spec_in(folder, on_bad: str):
    start, end = TWO_STAGES.index("data: "), TWO_STAGES.index("stages:")
    columns = f"columns: {{photo: image, answer: word}}, held_out: 0.3, on_bad: {on_bad}}}\n"
    text = (TWO_STAGES[:start] + DATA + columns + TWO_STAGES[end:]).replace("{question} ", "")
    (folder / "spec.yaml").write_text(text)
    return parse(text, folder / "spec.yaml")


def test_a_row_that_is_wrong_ends_the_run_before_it_learns(folder):
    with pytest.raises(AssemblerError, match=r"rows\.jsonl:4: not JSON"):
        train(spec_in(folder, "fail"), folder / "run")


def test_bad_rows_are_left_out_counted_and_named_and_stay_out(folder, capsys):
    run = train(spec_in(folder, "skip"), folder / "run")
    assert "3 rows cannot be read and are left out" in capsys.readouterr().out
    skipped = json.loads(run.skipped_path.read_text())
    assert list(skipped) == ["3", "5", "7"] and "rows.jsonl:8" in skipped["7"] and "7.png" in skipped["7"]
    Image.new("RGB", (8, 8)).save(folder / "7.png")  # mended later: the run goes on without it
    graph, _ = load_run(run.folder)
    learned, held = split(graph)
    assert len(learned) + len(held) == 9 and not {"word 3", "word 5", "seven"} & {r["word"] for r in [*learned, *held]}


SOUNDS = """
assembler: 1
nodes:
  sound: {type: input.audio, seconds: 0.48}
  ears: {type: encoder.whisper, config: {d_model: 16, encoder_layers: 1, max_source_positions: 24}}
  head: {type: head.classifier, classes: 2}
edges: [sound -> ears, ears -> head]
data: {type: dataset.jsonl, options: {path: rows.jsonl, columns: {sound: audio, label: label}}, on_bad: skip}
"""


def test_hostile_sounds_are_left_out_each_with_its_reason(tmp_path):
    tone = np.sin(np.arange(8000) / 5).astype(np.float32) / 2
    hostile = {"one": tone[:1], "empty": tone[:0], "nan": np.where(tone > 0, np.nan, tone), "good": tone}
    for name, samples in hostile.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.flac", tone, 16_000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:900])
    soundfile.write(tmp_path / "wide.wav", np.repeat(tone[:, None], 8, 1), 192_000)
    names = ["one.wav", "cut.flac", "good.wav", "nan.wav", "empty.wav", "wide.wav"]
    lines = [json.dumps({"sound": name, "label": 0}) for name in names]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    graph = check(parse(SOUNDS, tmp_path / "spec.yaml")).require()
    learned, held = split(graph)
    assert len(learned) + len(held) == 2
    reasons = {0: "one.wav is 1 samples", 1: "cut.flac ", 3: "nan.wav", 4: "empty.wav"}
    assert {index: reason in graph.bad[index] for index, reason in reasons.items()} == dict.fromkeys(reasons, True)
    assert set(graph.bad) == set(reasons) and all(f"rows.jsonl:{i + 1}: " in told for i, told in graph.bad.items())


def test_a_row_stays_on_its_side_whatever_rows_come_and_go(folder):
    def sides(graph):
        return [{row["word"] for row in side} for side in split(graph)]

    spec = spec_in(folder, "skip")
    learned, held = sides(check(spec).require())
    lines = (folder / "rows.jsonl").read_text().splitlines()
    (folder / "rows.jsonl").write_text("\n".join([lines[9], *lines[:9], lines[11]]))
    fewer_learned, fewer_held = sides(check(spec).require())
    assert fewer_learned == learned - {"word 10"} and fewer_held == held - {"word 10"} and held
