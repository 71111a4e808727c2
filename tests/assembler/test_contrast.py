"""The gallery's contrast of pictures and captions, in small: trained, scored and reloaded end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assembler.runs import Run
from assembler.spec import override, read
from assembler.tables import scored
from assembler.train import train

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "components" / "encoders" / "example" / "tokenizer.json"
CONFIG = {
    "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "vocab_size": 300, "max_position_embeddings": 24,
}  # fmt: skip
WORDS = {"weights": "random", "config": CONFIG, "tokenizer": str(TOKENIZER), "length": 20}
NAMES = [("cat", "", "red"), ("dog", "", "green"), ("bird", "", "blue")]
"""What a caption says of little, some and much of red, green and blue, in the tokenizer's few words."""


@pytest.fixture
def spec(tmp_path):
    """The gallery's spec on plain colours, each with a caption that says what is in it."""
    draw, lines = np.random.default_rng(0), []
    for i, shades in enumerate([*np.ndindex(3, 3, 3)] * 3):
        colour = [30 + 100 * shade + int(draw.integers(-20, 20)) for shade in shades]
        Image.new("RGB", (32, 32), tuple(colour)).save(tmp_path / f"{i}.png")
        said = " ".join(["a picture", *(names[shade] for names, shade in zip(NAMES, shades, strict=True))])
        lines.append(json.dumps({"image": f"{i}.png", "caption": said}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    found = read(ROOT / "exports" / "gallery" / "contrast.yaml")
    found.path = tmp_path / "contrast.yaml"
    options = {"path": "rows.jsonl", "columns": {"image": "image", "caption": "text"}}
    for setting in (
        "nodes.photo.size=[32, 32]",
        "nodes.eyes.model=test_efficientnet",
        "nodes.eyes.weights=random",
        *(f"nodes.words.{key}={json.dumps(value)}" for key, value in WORDS.items()),
        f"data.options={json.dumps(options)}",
        "data.type=dataset.jsonl",
        "stages.meet.steps=100",
        "stages.meet.batch=16",
        "stages.meet.lr=0.01",
    ):
        found = override(found, setting)
    return found


@pytest.mark.parametrize("loss", ["clip", "siglip"])
def test_pairs_that_were_not_seen_find_each_other(spec, loss, tmp_path):
    run: Run = train(override(spec, f"nodes.meet.loss={loss}"), tmp_path / "run", cache=0)
    report = scored(run.folder, None, None, quiet=True)
    assert report["n"] > 8 and report["metric"] == "recall@1"
    chance, low = report["baselines"]["recall@5"], report["intervals"]["recall@5"][0]
    assert low > chance and report["recall@10"] >= report["recall@5"] >= report["recall@1"]
    losses = [json.loads(line)["loss"] for line in run.metrics_path.read_text().splitlines()]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
