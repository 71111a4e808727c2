"""The demo takes a spec all the way and tells the truth at the end."""

import io
import json

from PIL import Image
from rich.console import Console

from assembler.demo import SHOWN, contact_sheet, run
from components.datasets.digits import Digits


def test_the_demo_goes_all_the_way_and_fails_when_the_score_is_poor(spec, tmp_path):
    console = Console(file=io.StringIO(), width=200)
    assert run(spec.path, tmp_path / "out", console) == 1  # twelve steps on a model from nothing teach no digit
    told = console.file.getvalue()
    assert "torch: exact match 0" in told and "ONNX: exact match 0" in told
    assert f"assembler ask {tmp_path / 'out' / 'bundle'}" in told
    assert json.loads((tmp_path / "out" / "bundle" / "parity.json").read_text())["ok"]
    assert Image.open(tmp_path / "out" / "seven.png").size == (8, 8)
    assert Image.open(tmp_path / "out" / "answers.png").size == (880, 704)


def test_a_wrong_answer_is_red_on_the_contact_sheet_and_a_right_one_is_not(tmp_path):
    rows = Digits().rows(tmp_path)[:SHOWN]
    right = [row["word"] for row in rows]
    contact_sheet(rows, right, tmp_path / "right.png")
    contact_sheet(rows, ["one hundred", *right[1:]], tmp_path / "wrong.png")
    red = {
        name: sum(r > g + 60 for r, g, _ in Image.open(tmp_path / f"{name}.png").get_flattened_data())
        for name in ("right", "wrong")
    }
    assert red["right"] == 0 and red["wrong"] > 0
