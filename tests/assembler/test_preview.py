"""A preview shows what the model gets: pixels, sound, points, genes and the filled prompt."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from assembler.bundle.manifest import ExpressionProcessor, ImageProcessor, PointsProcessor, SoundProcessor
from assembler.bundle.processor import preprocess
from assembler.cli import app
from assembler.picturing import pictured, spectrogram

EXAMPLE = Path(__file__).parents[2] / "components" / "datasets" / "example"
SPEC = """
assembler: 1
name: guesses
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_vit}
  bridge: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 260, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2}
    prompt: "{photo} Is it {guess}? {answer}"
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
data:
  type: dataset.jsonl
  options: {path: rows.jsonl, columns: {photo: image, guess: text, answer: text}}
  held_out: 0
stages: [{name: align, train: [bridge], steps: 1, batch: 1, lr: 1.0e-3}]
"""


@pytest.fixture
def spec(tmp_path) -> Path:
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes((EXAMPLE / name).read_bytes())
    rows = [{"photo": f"{i}.png", "guess": "<script>alert(1)</script>", "answer": "no"} for i in (0, 1)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path / "spec.yaml"


def test_pixels_come_back_from_what_the_model_takes():
    processor = ImageProcessor(size=(24, 40), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1))
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    words, png, _ = pictured(preprocess(Image.fromarray(pixels), processor), None, processor, Path())
    assert "40 x 24" in words
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), pixels)


@settings(max_examples=10, deadline=None)
@given(tone=st.integers(300, 3500))
def test_a_spectrogram_peaks_where_the_tone_is(tone):
    from transformers.audio_utils import hertz_to_mel

    found = spectrogram(np.sin(2 * np.pi * tone * np.arange(8000) / 8000).astype(np.float32), 8000)
    bin_of_tone = hertz_to_mel(float(tone), "slaney") / hertz_to_mel(4000.0, "slaney") * (len(found) + 1) - 1
    assert abs(found.mean(1).argmax() - bin_of_tone) <= 1
    assert found.max() == 0 and found.min() >= -80


def test_only_the_sound_itself_is_drawn():
    mask = np.arange(16000) < 4000
    words, png, _ = pictured(np.ones(16000, np.float32), mask, SoundProcessor(rate=16000, samples=16000), Path())
    assert words.startswith("0.25 s of at most 1 s")
    assert Image.open(io.BytesIO(png)).width <= 27


def test_a_cloud_and_a_cell_are_told_with_their_real_positions():
    cloud = np.zeros((8, 3), np.float32)
    cloud[:3] = np.eye(3)
    words, png, _ = pictured(cloud, np.arange(8) < 3, PointsProcessor(points=8), Path())
    assert words == "3 points within 1.00 x 1.00 x 1.00" and png
    processor = ExpressionProcessor(genes=("CD3D", "CD14\tENSG00000170458", "ACTB"), normalise="none")
    words, _, bars = pictured(np.float32([0, 2, 5]), None, processor, Path())
    assert words.startswith("2 of 3 genes") and bars == (("ACTB", 5.0), ("CD14", 2.0))


def test_the_prompt_is_filled_and_counted(spec):
    page = spec.parent / "page.html"
    result = CliRunner().invoke(app, ["data", str(spec), "--preview", "--count", "2", "--json", "--out", str(page)])
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["learned"] == 2 and report["answers"]["commonest"] == {"no": 2}
    pieces = report["samples"][0]["prompts"]["talk"]
    assert [(piece["slot"], piece["source"], piece["tokens"]) for piece in pieces] == [
        ("photo", "wire", 4),
        (None, "text", len(" Is it ")),
        ("guess", "data", len("<script>alert(1)</script>")),
        (None, "text", 1),
        ("answer", "data", 2),
    ]
    html = page.read_text()
    assert html.count("data:image/png") == 2
    assert "<script" not in html and "&lt;script&gt;" in html, "a row's text is never HTML"


def test_a_bad_row_is_named_and_no_page_is_left(spec):
    (spec.parent / "1.png").write_bytes(b"no picture")
    page = spec.parent / "page.html"
    result = CliRunner().invoke(app, ["data", str(spec), "--preview", "--count", "2", "--out", str(page)])
    assert result.exit_code == 1
    assert "rows.jsonl:2" in result.output and "1.png" in result.output
    assert not page.exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(["fetch", "tuxpant"], "tuxpaint"), (["nosuch.yaml"], "nosuch.yaml"), (["digits", "more"], "takes no more")],
)
def test_what_is_not_there_is_said(given, sentence):
    result = CliRunner().invoke(app, ["data", *given])
    assert result.exit_code == 1 and sentence in result.output
