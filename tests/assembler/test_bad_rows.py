"""Rows that cannot be read end a run, or with `on_bad: skip` are left out, counted and named."""

import json

import pytest
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


def test_a_row_stays_on_its_side_whatever_rows_come_and_go(folder):
    def sides(graph):
        return [{row["word"] for row in side} for side in split(graph)]

    spec = spec_in(folder, "skip")
    learned, held = sides(check(spec).require())
    lines = (folder / "rows.jsonl").read_text().splitlines()
    (folder / "rows.jsonl").write_text("\n".join([lines[9], *lines[:9], lines[11]]))
    fewer_learned, fewer_held = sides(check(spec).require())
    assert fewer_learned == learned - {"word 10"} and fewer_held == held - {"word 10"} and held
