"""Manifests, folders and Hugging Face sets: what is written comes back, and what is wrong is told with its place."""

import json
import struct
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assembler.errors import AssemblerError
from assembler.registry import parts
from assembler.rows import Subset

EXAMPLE = Path(__file__).parents[2] / "components" / "datasets" / "example"
COLUMNS = {"photo": "image", "caption": "text", "number": "label"}
OPTIONS = {
    "dataset.jsonl": {"path": str(EXAMPLE / "rows.jsonl"), "columns": COLUMNS},
    "dataset.csv": {"path": str(EXAMPLE / "rows.csv"), "columns": COLUMNS},
    "dataset.parquet": {"path": str(EXAMPLE / "rows.parquet"), "columns": COLUMNS},
    "dataset.hf": {"source": f"file:{EXAMPLE / 'embedded'}", "columns": COLUMNS},
}


def rows_of(name: str, base: Path, **options):
    return parts()[name].model_validate(options).rows(base)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_rows_come_from_every_form(name, tmp_path):
    rows = rows_of(name, tmp_path, **OPTIONS[name])
    assert [(row["caption"], row["number"]) for row in rows] == [("zero", 0), ("one", 1), ("two", 2)]
    for number, row in enumerate(rows):
        assert row["photo"] == Image.open(EXAMPLE / f"{number}.png")
    assert isinstance(rows[1:], Subset) and rows[1:][0]["caption"] == rows[-2]["caption"] == "one"
    assert rows[1:].key(0) == rows.key(1) != rows.key(0)


def test_streaming_takes_the_first_rows(tmp_path):
    rows = rows_of("dataset.hf", tmp_path, **OPTIONS["dataset.hf"], streaming=True, limit=2)
    assert [row["caption"] for row in rows] == ["zero", "one"]


def test_a_set_that_datasets_saved_is_read_back(tmp_path):
    import datasets

    datasets.Dataset.from_dict({"text": ["a", "b"], "score": [0.5, 2.0]}).save_to_disk(tmp_path / "saved")
    rows = rows_of("dataset.hf", tmp_path, source="file:saved", columns={"text": "text", "score": "score"})
    assert list(rows) == [{"text": "a", "score": 0.5}, {"text": "b", "score": 2.0}]


def test_a_folder_names_its_classes():
    rows = rows_of("dataset.folder", EXAMPLE, path="classes")
    assert [(row["word"], row["label"]) for row in rows] == [("an odd one", 0), ("even", 1), ("even", 1)]
    assert rows[0]["image"] == Image.open(EXAMPLE / "1.png")


def test_a_quoted_cell_of_a_csv_holds_what_it_likes(tmp_path):
    (tmp_path / "t.csv").write_text('text,number\n"a, ""b""\nc",3\n\nd,x\ne\n', newline="")
    rows = rows_of("dataset.csv", tmp_path, path="t.csv", columns={"text": "text", "number": "label"})
    assert rows[0] == {"text": 'a, "b"\nc', "number": 3}
    with pytest.raises(AssemblerError, match=r"t\.csv:5: number must be a whole number"):
        rows.require()
    with pytest.raises(AssemblerError, match=r"t\.csv:6: it has 1 cells, and the first line has 2"):
        rows[2]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("dataset.csv", b"text\na\n", "the column number is not in its first line"),
        ("dataset.csv", b'text,number\n"a', r"rows:\d+: no CSV"),
        ("dataset.csv", b"\xff\xfe", "cannot be read"),
        ("dataset.parquet", b"PAR1", "cannot be read"),
        ("dataset.jsonl", b'{"text": "a", "number": true}', ":1: number must be a whole number"),
        ("dataset.jsonl", b'{"text": "a", "number": "1"}', ":1: number must be a whole number"),
    ],
)
def test_a_file_that_is_wrong_is_told(name, content, sentence, tmp_path):
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(AssemblerError, match=sentence):
        rows_of(name, tmp_path, path="rows", columns={"text": "text", "number": "label"}).require()


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    header = struct.pack(">II5B", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def wav(path: Path, samples: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\1" * samples)


@pytest.fixture
def hostile(tmp_path):
    """Files that cannot be used, by kind, in a folder `data`."""
    folder = tmp_path / "data"
    folder.mkdir()
    whole = (EXAMPLE / "0.png").read_bytes()
    (tmp_path / "outside.png").write_bytes(whole)
    (folder / "truncated.png").write_bytes(whole[:60])
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    wav(folder / "short.wav", 1)
    wav(folder / "empty.wav", 0)
    np.save(folder / "nan.npy", np.full((4, 3), np.nan, np.float32))
    (folder / "empty.off").write_text("OFF\n0 0 0\n")
    return folder


@pytest.mark.parametrize(
    ("kind", "file", "sentence"),
    [
        ("image", "truncated.png", "no picture that can be opened"),
        ("image", "bomb.png", "no picture that can be opened"),
        ("image", "../outside.png", "lies outside"),
        ("image", "/etc/hostname", "lies outside"),
        ("image", "link.png", "lies outside"),
        ("image", "none\0.png", "lies outside"),
        ("image", "none.png", "is not there"),
        ("audio", "short.wav", "is 1 samples long"),
        ("audio", "empty.wav", "holds no sound"),
        ("points", "nan.npy", "nan.npy"),
        ("points", "empty.off", "empty.off"),
    ],
)
def test_a_hostile_file_is_told_with_file_and_row(kind, file, sentence, hostile):
    (hostile / "rows.jsonl").write_text("\n" + json.dumps({"file": file}) + "\n")
    rows = rows_of("dataset.jsonl", hostile, path="rows.jsonl", columns={"file": kind})
    with pytest.raises(AssemblerError, match=rf"rows\.jsonl:2: .*{sentence}"):
        rows[0]


def test_a_picture_of_a_hub_set_is_its_bytes_or_lies_in_its_folder(tmp_path):
    from components.datasets.hf import HubRows

    cells = [{"photo": {"bytes": None, "path": "/etc/hostname"}}, {"photo": None}]
    cells += [{"photo": {"bytes": b"\x89PNG", "path": "a.png"}}]
    rows = HubRows(cells, {"photo": "image"}, tmp_path, "set")
    sentences = ["set row 0: .*lies outside", "set row 1: .*is missing", "set row 2: a.png is no picture"]
    for index, sentence in enumerate(sentences):
        with pytest.raises(AssemblerError, match=sentence):
            rows[index]
