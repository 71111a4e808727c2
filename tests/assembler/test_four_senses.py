"""SigLIP, Whisper, a point transformer and scMamba before one LLM: checked, trained, kept, and exported."""

import json

import h5py
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.evaluate import TorchAnswers
from assembler.export import export
from assembler.forecast import summary
from assembler.parity import samples
from assembler.runs import Run, load_run
from assembler.spec import parse
from assembler.train import train
from assembler.weights import load_state

NODES = """\
assembler: 1
nodes:
  photo: {type: input.image, size: [16, 16]}
  sound: {type: input.audio, seconds: 0.5}
  cloud: {type: input.points, points: 32}
  cell: {type: input.expression, genes: [G0, G1, G2, G3, G4, G5]}
  eyes: {type: encoder.hf_vision, config: {model_type: siglip_vision_model, hidden_size: 16, num_hidden_layers: 1,
         num_attention_heads: 2, image_size: 16, patch_size: 8, intermediate_size: 32,
         vision_use_head: false}}
  ears: {type: encoder.whisper, config: {d_model: 16, encoder_ffn_dim: 32, encoder_layers: 1, num_mel_bins: 80,
         encoder_attention_heads: 2, max_source_positions: 50}}
  hand: {type: encoder.point_transformer, groups: 8, neighbours: 4, width: 16, depth: 1, heads: 2, drop_path: 0}
  nose: {type: encoder.scmamba, width: 18, depth: 1, state: 3, output: pooled}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 1, num_attention_heads: 4}
    prompt: "{photo} {sound} {cloud} {cell} {answer}"
    max_new_tokens: 4
"""
WIRES = {"photo": "eyes", "sound": "ears", "cloud": "hand", "cell": "nose"}
SPEC = NODES + "".join(f"  to_{source}: {{type: projector.mlp, depth: 1}}\n" for source in WIRES) + "edges:\n"
SPEC += "".join(
    f"  - {source} -> {part}\n  - {part} -> to_{source}\n  - to_{source} -> talk.{source}\n"
    for source, part in WIRES.items()
)
SPEC += """\
data:
  type: dataset.jsonl
  options:
    path: rows.jsonl
    columns: {photo: image, sound: audio, cloud: points, cell: expression, answer: text}
  held_out: 0
stages:
  - {name: all, train: [eyes, ears, hand, nose, to_photo, to_sound, to_cloud, to_cell], steps: 2, batch: 2, lr: 0.01}
"""


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """Four rows, each with a file for every sense: sounds and clouds of different lengths."""
    folder, rng, lines = tmp_path_factory.mktemp("senses"), np.random.default_rng(0), []
    for index in range(4):
        names = {"photo": f"{index}.png", "sound": f"{index}.wav", "cloud": f"{index}.npy", "cell": f"{index}.h5ad"}
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / names["photo"])
        soundfile.write(folder / names["sound"], rng.normal(size=1500 * (index + 1)) / 9, 8000)
        np.save(folder / names["cloud"], rng.normal(size=(5 + 20 * index, 3)))
        with h5py.File(folder / names["cell"], "w") as file:
            file["X"] = rng.integers(1, 9, (1, 6)).astype(np.float32)
            file["obs"] = np.array([(b"c",)], dtype=[("index", "S4")])
            file["var"] = np.array([(b"G%d" % i,) for i in range(6)], dtype=[("index", "S4")])
        lines.append(json.dumps({**names, "answer": ("yes", "no")[index % 2]}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return parse(SPEC, folder / "spec.yaml")


@pytest.fixture(scope="module")
def run(spec, tmp_path_factory):
    return train(spec, tmp_path_factory.mktemp("runs") / "run")


def test_the_four_senses_are_one_graph_with_a_forecast(spec):
    graph = check(spec)
    assert not graph.problems
    assert {str(graph.values[f"to_{source}"]).split()[0] for source in WIRES} == {"tokens"}
    report = summary(graph)
    assert all(any(part in str(row) for row in report["nodes"]) for part in WIRES.values())


def test_every_encoder_learns_and_is_read_back_bit_for_bit(run, spec):
    _, assembly = load_run(run.folder)
    state, kept = assembly.state_dict(), load_state(run.learned("all"))
    assert all(torch.equal(state[key], tensor) for key, tensor in kept.items())
    assert all(any(key.startswith(f"nodes.{part}.") for key in kept) for part in WIRES.values())
    assert len(Run(run.folder).metrics_path.read_text().splitlines()) == 2


def test_the_bundle_of_four_senses_answers_as_torch_does(run, tmp_path):
    graph, assembly = load_run(run.folder)
    rows = list(graph.dataset.rows(graph.base))
    assert export(graph, assembly, tmp_path / "bundle", "fp32", rows)["ok"]
    asked = samples(graph, "talk", rows)
    assert Bundle(tmp_path / "bundle").generate_ids(asked) == TorchAnswers(graph, assembly).ids(rows)
