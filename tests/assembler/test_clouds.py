"""Files of clouds and meshes, and a cloud as a tensor: the same each time, and a sentence for whatever is wrong."""

import json
import struct

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler import meshes
from assembler.bundle.clouds import farthest_points, points_array
from assembler.bundle.manifest import PointsProcessor
from assembler.bundle.processor import tensors
from assembler.errors import AssemblerError
from assembler.meshes import SURFACE_POINTS, open_cloud
from assembler.samples import Cloud
from assembler.vrml import read_vrml


def drawn(count: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, channels)).astype(np.float32)


def glb(tree: dict) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sII", b"glTF", 2, 20 + len(text)) + struct.pack("<I4s", len(text), b"JSON") + text


def wrl(points: str, corners: str, inside: str = "") -> bytes:
    shape = f"geometry IndexedFaceSet {{ coord Coordinate {{ point [{points}] }} coordIndex [{corners}] {inside} }}"
    return f"#VRML V2.0 utf8\nShape {{ {shape} }}\n".encode()


@pytest.mark.parametrize("kind", ["ply", "obj", "stl", "off", "glb"])
def test_a_mesh_gives_points_on_its_surface_and_their_normals(kind, tmp_path):
    trimesh.creation.box().export(tmp_path / f"box.{kind}")
    points = open_cloud(tmp_path / f"box.{kind}").points
    assert points.shape == (SURFACE_POINTS, 6) and points.dtype == np.float32
    np.testing.assert_allclose(np.abs(points[:, :3]).max(axis=1), 0.5, atol=1e-6)
    np.testing.assert_allclose((points[:, :3] * points[:, 3:]).sum(axis=1), 0.5, atol=1e-6)
    faces, counts = np.unique(points[:, 3:].round(), axis=0, return_counts=True)
    assert len(faces) == 6 and counts.min() > 0.9 * SURFACE_POINTS / 6
    assert (open_cloud(tmp_path / f"box.{kind}").points == points).all()


def test_face_sets_of_vrml_are_one_mesh(tmp_path):
    box = trimesh.creation.box()
    points = ", ".join(" ".join(map(str, place)) for place in box.vertices.tolist())
    corners = " -1 ".join(" ".join(map(str, face)) for face in box.faces.tolist())
    lines = b"Shape { geometry IndexedLineSet { coord Coordinate { point [9 9 9, 8 8 8] } coordIndex [0 1 -1] } }\n"
    note = 'texCoord TextureCoordinate { point [0 0, 1 1] } # point [1 2]\n info "coordIndex [7]"'
    whole = tmp_path / "box.wrl"
    whole.write_bytes(b"#VRML V2.0 utf8\n" + lines + wrl(points, corners, note).partition(b"\n")[2])
    box.export(tmp_path / "box.ply")
    np.testing.assert_allclose(open_cloud(whole).points, open_cloud(tmp_path / "box.ply").points, atol=1e-6)


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=5), ended=st.booleans())
def test_a_face_of_n_corners_is_n_minus_2_triangles(sizes, ended):
    corners = " -1 ".join(" ".join(str(i % 4) for i in range(size)) for size in sizes) + " -1" * ended
    mesh = read_vrml(wrl("0 0 0, 1 0 0, 1 1 0, 0 1 0", corners).decode())
    assert mesh.faces.shape == (sum(max(size - 2, 0) for size in sizes), 3)
    assert mesh.faces[:1].tolist() == [[0, 1, 2]] * min(1, len(mesh.faces))


@pytest.mark.parametrize("kind", ["wrl", "ply"])
def test_a_mesh_that_is_too_large_is_refused_before_it_is_read(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(meshes, "MAX_WRL" if kind == "wrl" else "MAX_BYTES", 50)
    path = tmp_path / f"huge.{kind}"
    path.write_bytes(wrl("0 0 0, 1 0 0, 0 1 0", "0 1 2 -1") if kind == "wrl" else PLY.encode())
    with pytest.raises(AssemblerError, match=rf"huge\.{kind} .*at most"):
        open_cloud(path)


def test_a_cloud_gives_its_own_points_normals_and_colours(tmp_path):
    xyz, colours = drawn(20), np.random.default_rng(1).integers(0, 255, (20, 4), dtype=np.uint8)
    trimesh.PointCloud(xyz, colors=colours).export(tmp_path / "cloud.ply")
    points = open_cloud(tmp_path / "cloud.ply").points
    np.testing.assert_allclose(points, np.concatenate([xyz, colours[:, :3] / 255], axis=1), atol=1e-6)
    properties = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    text = f"ply\nformat ascii 1.0\nelement vertex 2\n{properties}end_header\n0 0 0 1 0 0\n1 2 3 0 1 0\n"
    (tmp_path / "normals.ply").write_text(text)
    assert open_cloud(tmp_path / "normals.ply").points.tolist() == [[0, 0, 0, 1, 0, 0], [1, 2, 3, 0, 1, 0]]
    np.save(tmp_path / "cloud.npy", drawn(20, 5).astype(np.float64))
    assert (open_cloud(tmp_path / "cloud.npy").points == drawn(20, 5)).all()


PLY = "ply\nformat {}\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 3), }"
SCENE = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}]}
DAMAGED = {
    "empty.obj": b"",
    "empty.off": b"OFF\n0 0 0\n",
    "empty.stl": b"solid\nendsolid",
    "nan.obj": b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "nan.ply": (PLY.format("ascii 1.0", 1) + "inf 0 0\n").encode(),
    "flat.obj": b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n",
    "outside.obj": b"v 0 0 0\nf 1 2 999999999\n",
    "short.ply": PLY.format("binary_little_endian 1.0", 99999999999).encode(),
    "short.off": b"OFF\n999999999 999999999 0\n0 0 0\n",
    "short.npy": b"\x93NUMPY\x01\x00v\x00" + HEADER.ljust(117).encode() + b"\n",
    "zeros.glb": glb({**SCENE, "accessors": [{"componentType": 5126, "count": 10**9, "type": "VEC3"}]}),
    "elsewhere.glb": glb({**SCENE, "buffers": [{"byteLength": 36, "uri": "../secret.bin"}]}),
    "circle.glb": glb({**SCENE, "nodes": [{"children": [1]}, {"children": [0]}]}),
    "doubling.glb": glb({**SCENE, "nodes": [{"children": [1, 1]}, {"children": [2, 2]}, {"mesh": 0}]}),
    "words.glb": b"hello",
    "cloud.xyz": b"0 0 0",
    "empty.wrl": b"#VRML V2.0 utf8\n",
    "first.wrl": b"#VRML V1.0 ascii\nSeparator {}",
    "nan.wrl": wrl("nan 0 0, 1 0 0, 0 1 0", "0 1 2 -1"),
    "flat.wrl": wrl("0 0 0, 0 0 0, 0 0 0", "0 1 2 -1"),
    "outside.wrl": wrl("0 0 0, 1 0 0, 0 1 0", "0 1 999999999 -1"),
    "half.wrl": wrl("0 0 0, 1 0 0, 0 1", "0 1 0 -1"),
    "words.wrl": wrl("0 0 0, 1 0 zero, 0 1 0", "0 1 2 -1"),
    "elsewhere.wrl": b'#VRML V2.0 utf8\nInline { url "file:///etc/passwd" }\n' + wrl("0 0 0, 1 0 0, 0 1 0", "0 1 2 -1"),
    "placed.wrl": b"#VRML V2.0 utf8\nTransform { scale 2 2 2 children [" + wrl("0 0 0, 1 0 0, 0 1 0", "0 1 2") + b"] }",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_holds_no_cloud_is_a_sentence_with_its_name(name, tmp_path):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(AssemblerError, match=name):
        open_cloud(tmp_path / name)


def test_objects_in_an_array_are_not_unpickled(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([[{}, {}, {}]], dtype=object), allow_pickle=True)
    with pytest.raises(AssemblerError, match=r"objects\.npy"):
        open_cloud(tmp_path / "objects.npy")


def test_files_that_a_mesh_refers_to_are_not_opened(tmp_path):
    (tmp_path / "paint.mtl").write_text("newmtl red\nKd 1 0 0\n")
    body = "usemtl red\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    (tmp_path / "with.obj").write_text("mtllib paint.mtl\n" + body)
    (tmp_path / "without.obj").write_text("mtllib nothing.mtl\n" + body)
    assert (open_cloud(tmp_path / "with.obj").points == open_cloud(tmp_path / "without.obj").points).all()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 60),
    wanted=st.integers(1, 60),
    extra=st.integers(0, 2),
    sample=st.sampled_from(["random", "farthest"]),
    short=st.sampled_from(["mask", "repeat"]),
)
def test_a_cloud_becomes_as_many_points_as_are_wanted(count, wanted, extra, sample, short):
    processor = PointsProcessor(points=wanted, extra=extra, normalize="none", sample=sample, short=short)
    cloud = drawn(count, 6)
    values, mask = points_array(cloud, processor)
    assert values.shape == (wanted, 3 + extra) and mask.sum() == (wanted if short == "repeat" else min(count, wanted))
    rows = {tuple(row) for row in cloud[:, : 3 + extra].tolist()}
    kept = [tuple(row) for row in values[mask].tolist()]
    assert set(kept) <= rows and len(set(kept)) == min(count, wanted) and not values[~mask].any()


@given(shift=st.floats(-1e3, 1e3), scale=st.floats(0.01, 100))
def test_where_and_how_large_a_cloud_was_does_not_matter(shift, scale):
    processor, cloud = PointsProcessor(points=40), drawn(50)
    plain, moved = points_array(cloud, processor)[0], points_array(cloud * scale + shift, processor)[0]
    np.testing.assert_allclose(plain, moved, atol=1e-2)
    whole = points_array(cloud, PointsProcessor(points=50))[0]
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1).max(), 1, atol=1e-6)


def test_the_farthest_points_do_not_follow_the_order_of_the_cloud():
    cloud, order = drawn(60), np.random.default_rng(2).permutation(60)
    assert (cloud[farthest_points(cloud, 20)] == cloud[order][farthest_points(cloud[order], 20)]).all()


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        (Cloud(drawn(4, 3)), "wants 5 numbers a point"),
        (Cloud(drawn(0, 5)), "at least one point"),
        (Cloud(np.full((3, 5), np.nan, np.float32)), "no finite numbers"),
        ("cloud.ply", "wants a Cloud"),
    ],
)
def test_a_sample_that_is_no_such_cloud_is_refused(sample, sentence, tmp_path):
    with pytest.raises(AssemblerError, match=sentence):
        tensors(sample, PointsProcessor(points=8, extra=2), True, tmp_path)


def test_a_cloud_at_one_place_lies_in_the_origin():
    assert not points_array(np.full((4, 3), 7.0, np.float32), PointsProcessor(points=4))[0].any()
