"""A set laid out as the hub lays it out: a card that names configurations, splits in parquet, pictures as bytes."""

import io
import json

import pytest
from PIL import Image

from assembler.batches import split
from assembler.check import check
from assembler.errors import AssemblerError
from assembler.registry import parts
from assembler.spec import parse
from assembler.train import train
from tests.assembler.conftest import TWO_STAGES

CARD = """\
---
license: mit
configs:
- config_name: plain
  data_files:
  - {split: train, path: plain/train-*.parquet}
  - {split: test, path: plain/test-*.parquet}
- config_name: other
  data_files:
  - {split: train, path: other/train-*.parquet}
---
# Shades
"""
COLUMNS = {"image": "image", "word": "text"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two configurations; in one the training split lies in two files and there is a test split."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    for name, words in [
        ("plain/train-00000-of-00002", "abcdef"),
        ("plain/train-00001-of-00002", "ghijkl"),
        ("plain/test-00000-of-00001", "xyz"),
        ("other/train-00000-of-00001", "o"),
    ]:
        path = folder / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        cells = {"image": [{"bytes": picture(word), "path": f"{word}.png"} for word in words], "word": list(words)}
        features = datasets.Features({"image": datasets.Image(), "word": datasets.Value("string")})
        datasets.Dataset.from_dict(cells, features=features).to_parquet(str(path))
    return folder


def picture(word: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (2 * ord(word), 0, 0)).save(content, "PNG")
    return content.getvalue()


def rows_of(folder, **options):
    options = {"source": f"file:{folder.name}", "columns": COLUMNS, **options}
    return parts()["dataset.hf"].model_validate(options).rows(folder.parent)


@pytest.mark.parametrize("streaming", [{}, {"streaming": True, "limit": 100}], ids=["whole", "streaming"])
@pytest.mark.parametrize(
    ("name", "part", "words"), [("plain", "train", "abcdefghijkl"), ("plain", "test", "xyz"), ("other", "train", "o")]
)
def test_a_configuration_and_a_split_give_their_own_rows(name, part, words, streaming, folder):
    rows = rows_of(folder, name=name, split=part, **streaming)
    assert "".join(row["word"] for row in rows) == words
    assert all(row["image"].getpixel((0, 0)) == (2 * ord(row["word"]), 0, 0) for row in rows)


def test_a_row_is_known_alike_however_it_comes(folder):
    whole, streamed = rows_of(folder, name="plain"), rows_of(folder, name="plain", streaming=True, limit=8)
    assert [streamed.key(i) for i in range(8)] == [whole.key(i) for i in range(8)] and len(streamed) == 8


@pytest.mark.parametrize("options", [{"name": "plain", "split": "dev"}, {"name": "none"}])
def test_what_the_set_does_not_have_is_told(options, folder):
    with pytest.raises(AssemblerError, match="is no set that `datasets` can read"):
        rows_of(folder, **options)


def test_a_set_that_brings_code_is_refused_and_the_code_is_not_run(folder):
    (folder / "repository.py").write_text("import pathlib\npathlib.Path(__file__).with_name('ran').touch()")
    with pytest.raises(AssemblerError, match="scripts are no longer supported"):
        rows_of(folder, name="plain")
    assert not (folder / "ran").exists()


def test_a_run_learns_from_a_streamed_set_and_skips_what_cannot_be_read(folder, tmp_path):
    import datasets

    cells = {"image": [{"bytes": picture("m")[:40], "path": "m.png"}], "word": ["broken"]}
    datasets.Dataset.from_dict(cells).to_parquet(str(folder / "plain" / "train-00002-of-00002.parquet"))
    options = {"source": "file:repository", "columns": COLUMNS, "name": "plain", "streaming": True, "limit": 13}
    start, end = TWO_STAGES.index("data: "), TWO_STAGES.index("stages:")
    columns = "columns: {photo: image, answer: word}, held_out: 0.3, on_bad: skip"
    data = f"data: {{type: dataset.hf, options: {json.dumps(options)}, {columns}}}\n"
    text = (TWO_STAGES[:start] + data + TWO_STAGES[end:]).replace("{question} ", "")
    (tmp_path / "spec.yaml").write_text(text)
    run = train(parse(text, tmp_path / "spec.yaml"), tmp_path / "run")
    (said,) = json.loads(run.skipped_path.read_text()).values()
    assert "file:repository row 12: m.png is no picture" in said
    assert sum(map(len, split(check(run.spec()).require()))) == 12
