"""A tiny model that takes a picture, a sound, a cloud and a cell, with data for it: what the Try page shows of each."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import soundfile
from PIL import Image

GENES = ("CD3D", "CD8A", "MS4A1", "ACTB")
ROWS = 6
SPEC = """\
assembler: 1
name: senses
nodes:
  photo: {type: input.image, size: [32, 32]}
  eyes: {type: encoder.timm, model: test_vit}
  see: {type: projector.linear}
  sound: {type: input.audio, seconds: 0.5}
  ears:
    type: encoder.whisper
    config: {d_model: 16, encoder_ffn_dim: 32, encoder_layers: 1, encoder_attention_heads: 2, num_mel_bins: 80,
             max_source_positions: 50}
  hear: {type: projector.linear}
  cloud: {type: input.points, points: 32}
  shape:
    type: encoder.pointnet2
    levels: [{centres: 4, scales: [{radius: 1.5, neighbours: 4, widths: [8, 12]}]}]
  feel: {type: projector.linear}
  cell: {type: input.expression, genes: [CD3D, CD8A, MS4A1, ACTB], normalise: log1p_cp10k}
  genes: {type: encoder.scmamba, width: 16, depth: 1, state: 3}
  know: {type: projector.linear}
  talk:
    type: backbone.causal_lm
    arch: llama
    config: {vocab_size: 300, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 2, num_attention_heads: 4}
    prompt: "{photo} {sound} {cloud} {cell} {answer}"
    max_new_tokens: 4
edges:
  - photo -> eyes
  - eyes -> see
  - see -> talk.photo
  - sound -> ears
  - ears -> hear
  - hear -> talk.sound
  - cloud -> shape
  - shape -> feel
  - feel -> talk.cloud
  - cell -> genes
  - genes -> know
  - know -> talk.cell
data:
  type: dataset.jsonl
  options:
    path: ../data/rows.jsonl
    columns: {photo: image, sound: audio, cloud: points, cell: expression, answer: text}
  held_out: 0.5
stages:
  - {name: align, train: [see, hear, feel, know], steps: 1, batch: 1}
"""


def write_cells(path: Path, table: np.ndarray) -> None:
    """An h5ad of counts [cells, genes]."""
    with h5py.File(path, "w") as file:
        file["X"] = table.astype(np.float32)
        for name, index in (("var", GENES), ("obs", [f"c{i}" for i in range(len(table))])):
            group = file.create_group(name)
            group["_index"] = np.array(index, dtype=h5py.string_dtype())
            group.attrs["_index"] = "_index"


def write(workspace: Path) -> Path:
    """The spec and its rows in a workspace."""
    data, random = workspace / "data", np.random.default_rng(0)
    data.mkdir(parents=True)
    rows = []
    for i in range(ROWS):
        Image.fromarray(random.integers(0, 255, (32, 32, 3), np.uint8)).save(data / f"{i}.png")
        soundfile.write(data / f"{i}.wav", random.normal(0, 0.1, 8000).astype(np.float32), 16_000)
        np.save(data / f"{i}.npy", random.normal(size=(64, 3)).astype(np.float32))
        write_cells(data / f"{i}.h5ad", random.poisson(5, (1, len(GENES))))
        files = {"photo": f"{i}.png", "sound": f"{i}.wav", "cloud": f"{i}.npy", "cell": f"{i}.h5ad"}
        rows.append(json.dumps({**files, "answer": "yes"}) + "\n")
    (data / "rows.jsonl").write_text("".join(rows))
    spec = workspace / "specs" / "senses.yaml"
    spec.parent.mkdir(exist_ok=True)
    spec.write_text(SPEC)
    return spec
