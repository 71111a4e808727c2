"""Rows of a JSON-lines file: what is written comes back, and what is wrong is told with its line."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from assembler.errors import AssemblerError
from components.datasets.jsonl import JsonLines

texts = st.text(st.characters(exclude_categories=["Cs"]))


def dataset(**columns: str) -> JsonLines:
    return JsonLines.model_validate({"path": "rows.jsonl", "columns": columns})


@settings(deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"text": texts, "number": st.integers()}), max_size=5), mark=st.booleans())
def test_every_text_comes_back_whatever_is_in_it(rows, mark, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8-sig" if mark else "utf-8", newline="")
    assert list(dataset(text="text", number="label").rows(folder)) == rows


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('{"text": "a"}\n{"text": \n', r"rows\.jsonl:2: not JSON"),
        ('\n\n{"text": 5}\n', r"rows\.jsonl:3: text must be a text"),
        ('{"word": "a"}\n', r"rows\.jsonl:1: text must be a text"),
        ("[" * 100_000, r"rows\.jsonl:1: not JSON"),
        ("5\n", r"rows\.jsonl:1: text must be a text"),
    ],
)
def test_a_line_that_is_wrong_is_told_by_its_number(lines, sentence, tmp_path):
    (tmp_path / "rows.jsonl").write_text(lines)
    with pytest.raises(AssemblerError, match=sentence):
        dataset(text="text").rows(tmp_path).require()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(AssemblerError, match=r"rows\.jsonl cannot be read"):
        dataset(text="text").rows(tmp_path).require()
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AssemblerError, match=r"rows\.jsonl cannot be read"):
        dataset(text="text").rows(tmp_path).require()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("../out.png", "lies outside"), ("none.png", "is not there"), ("rows.jsonl", "no picture that can be opened")],
)
def test_a_picture_is_a_file_beside_the_rows(name, sentence, tmp_path: Path):
    (tmp_path / "data").mkdir()
    for path in (tmp_path / "out.png", tmp_path / "data" / "in.png"):
        Image.new("RGB", (3, 2), "red").save(path)
    lines = [json.dumps({"photo": one}) for one in ("in.png", name)]
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(lines))
    rows = dataset(photo="image").rows(tmp_path / "data")
    assert rows[0]["photo"].size == (3, 2) and rows[:1][0]["photo"].getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(AssemblerError, match=sentence):
        rows[1]
