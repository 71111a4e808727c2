"""A film, a cut-up picture and a cloud in one prompt: the bundle answers as torch does, from the files themselves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assembler.asking import ask
from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.compile import compile_graph
from assembler.evaluate import TorchAnswers
from assembler.export import export
from assembler.parity import samples
from assembler.readers import READERS
from assembler.spec import parse

SPEC = """\
assembler: 1
nodes:
  film: {type: input.video, frames: 4, size: [32, 32]}
  page: {type: input.image, size: [32, 32], crops: 3}
  cloud: {type: input.points, points: 48}
  eyes: {type: encoder.hf_vision, config: {model_type: siglip_vision_model, SMALL}}
  lens: {type: encoder.hf_vision, output: pooled, config: {model_type: vit, SMALL}}
  hand: {type: encoder.point_transformer, groups: 8, neighbours: 4, width: 16, depth: 1, heads: 2}
  still: {type: projector.temporal_pool}
  a: {type: projector.linear}
  b: {type: projector.linear}
  c: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4}
    prompt: "{film} {page} {cloud} {answer}"
    max_new_tokens: 6
edges:
  - film -> eyes
  - eyes -> still
  - still -> a
  - a -> talk.film
  - page -> lens
  - lens -> b
  - b -> talk.page
  - cloud -> hand
  - hand -> c
  - c -> talk.cloud
"""
SMALL = "hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32, "
SMALL += "image_size: 32, patch_size: 16"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[dict[str, Path]]:
    """Films of 2 and 6 frames, a square and a wide page, clouds of 5 and 90 points."""
    folder, rng, rows = tmp_path_factory.mktemp("files"), np.random.default_rng(0), []
    for frames, page, points in ((2, (40, 40), 5), (6, (90, 30), 90)):
        paths = {
            name: folder / f"{frames}{suffix}" for name, suffix in (("film", ""), ("page", ".png"), ("cloud", ".npy"))
        }
        paths["film"].mkdir()
        for index in range(frames):
            noise = rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(noise).save(paths["film"] / f"{index}.png")
        Image.fromarray(rng.integers(0, 255, (*page[::-1], 3), dtype=np.uint8)).save(paths["page"])
        np.save(paths["cloud"], rng.normal(size=(points, 3)))
        rows.append(paths)
    return rows


def test_the_bundle_answers_as_torch_does_whatever_the_lengths(files, tmp_path):
    graph = check(parse(SPEC.replace("SMALL", SMALL), tmp_path / "spec.yaml"))
    assembly = compile_graph(graph)
    kinds = {"film": "video", "page": "image", "cloud": "points"}
    rows = [{**{name: READERS[kinds[name]](path) for name, path in row.items()}, "answer": "yes"} for row in files]
    assert export(graph, assembly, tmp_path / "bundle", "fp32", rows)["ok"]
    answers, served = TorchAnswers(graph, assembly), Bundle(tmp_path / "bundle")
    asked = samples(graph, "talk", rows)
    assert served.generate_ids(asked) == answers.ids(rows)
    alone = [served.generate_ids([one])[0] for one in asked]
    assert alone == answers.ids(rows)
    named = {kinds[name]: [str(path)] for name, path in files[0].items()}
    assert ask(tmp_path / "bundle", named, []) == served.generate(asked[:1])[0].strip()
