"""Clouds and meshes that cannot be learned from: each is told with its file and row, or left out and counted."""

import json

import numpy as np
import pytest
import torch

from assembler.batches import Batches, split
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.spec import parse

SPEC = """
assembler: 1
nodes:
  solid: {{type: input.points, points: 16}}
  hand: {{type: encoder.point_transformer, groups: 4, neighbours: 4, width: 16, depth: 1, heads: 2}}
  kind: {{type: head.classifier, classes: 2}}
edges: [solid -> hand, hand -> kind]
data:
  type: dataset.jsonl
  options: {{path: rows.jsonl, columns: {{solid: points, label: label}}}}
  held_out: 0
  on_bad: {on_bad}
"""
HUGE = "ply\nformat binary_little_endian 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n"
BAD = {
    "nan.npy": (np.full((20, 3), np.nan), "no finite numbers"),
    "endless.npy": (np.array([[0, 0, np.inf]] * 20), "no finite numbers"),
    "none.npy": (np.zeros((0, 3)), "holds no points"),
    "flat.npy": (np.zeros((20, 2)), r"\[N, 3 or more\]"),
    "empty.obj": (b"", "holds no points|no obj file"),
    "point.obj": (b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "no area"),
    "huge.ply": (HUGE.encode(), "more than the file holds"),
    "fetched.wrl": (b'#VRML V2.0 utf8\nInline { url "http://example.com/a.wrl" }\n', "`Inline` is not read"),
    "gone.npy": (None, "cannot be read"),
    "../outside.npy": (None, "lies outside"),
}


@pytest.fixture
def folder(tmp_path):
    """A good cloud, then all that is wrong, then one whose points are all in one place, which is a cloud."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "good.npy", rng.normal(size=(30, 3)))
    np.save(tmp_path / "same.npy", np.ones((30, 3)))
    for name, (content, _) in BAD.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            np.save(tmp_path / name, content)
    names = ["good.npy", *BAD, "same.npy"]
    lines = [json.dumps({"solid": name, "label": index % 2}) for index, name in enumerate(names)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return tmp_path


def graph_in(folder, on_bad: str):
    return check(parse(SPEC.format(on_bad=on_bad), folder / "spec.yaml")).require()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_cloud_is_told_with_its_file_and_row(name, folder):
    rows, _ = split(graph_in(folder, "fail"))
    line = list(BAD).index(name) + 2
    with pytest.raises(AssemblerError, match=rf"rows\.jsonl:{line}: .*{name.rpartition('/')[2]}") as told:
        rows[line - 1]
    assert told.match(BAD[name][1])


def test_bad_clouds_are_left_out_and_the_rest_learns(folder):
    graph = graph_in(folder, "skip")
    rows, _ = split(graph)
    assert list(graph.bad) == list(range(1, len(BAD) + 1)) and len(rows) == 2
    assembly = compile_graph(graph)
    loss = assembly(**Batches(graph)(list(rows)))["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in assembly.parameters() if p.grad is not None)
