"""Point clouds and meshes from files: ply, obj, stl, off and glb through trimesh, wrl and npy here. No torch.

Nothing outside the named file is opened: materials, textures and buffers that a file refers to are left out or refused.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from assembler.errors import AssemblerError, told
from assembler.samples import Cloud
from assembler.vrml import read_vrml

SUFFIXES = (".ply", ".obj", ".stl", ".off", ".glb", ".wrl", ".npy")
MAX_BYTES = 2**29
MAX_WRL = 2**26
MAX_NUMBERS = 2**28
"""Numbers that a file may ask for, whatever its own size."""
SURFACE_POINTS = 16_384


def open_cloud(path: Path) -> Cloud:
    """The points of a file: of a cloud all, of a mesh SURFACE_POINTS drawn evenly from its surface, always the same.

    A mesh gives x, y, z and the surface's normal there. A cloud in a ply gives x, y, z, then normals and then red,
    green, blue of 0 to 1, those it has; an npy file of [N, 3 + C] numbers gives its own columns.

    Raises:
        AssemblerError: the file is not there, cannot be read, is too large, or holds no points or no finite ones.
    """
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise AssemblerError(f"{path} is no cloud or mesh that can be read; give one of {', '.join(SUFFIXES)}")
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES and kind != ".npy" else b""
    except OSError as error:
        raise AssemblerError(f"{path} cannot be read ({error.strerror}); check the path") from error
    if size > MAX_BYTES:
        raise AssemblerError(f"{path} has {size / 2**20:,.0f} MiB, and at most {MAX_BYTES / 2**20:,.0f} are read")
    with told(f"{path} is no {kind[1:]} file that can be read"):
        points = _npy(path) if kind == ".npy" else _geometry(data, kind[1:])
    if not len(points):
        raise AssemblerError(f"{path} holds no points and no surface; give a cloud or mesh that is not empty")
    if not np.isfinite(points).all():
        raise AssemblerError(f"{path} holds coordinates that are no finite numbers; clean the cloud")
    return Cloud(points)


def _npy(path: Path) -> np.ndarray:
    points = np.lib.format.open_memmap(path, mode="r")  # refuses objects, and a shape that the file does not fill
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise ValueError("it holds no array of numbers [N, 3 or more]")
    return np.array(points, np.float32)


def _geometry(data: bytes, kind: str) -> np.ndarray:
    """float32 [N, 3 + C] of a file's bytes."""
    import trimesh

    if kind == "wrl":
        return mesh_points(data)
    if kind == "glb":
        _check_glb(data)
    if kind == "ply":
        _check_ply(data)
    stream: Any = io.StringIO(data.decode("utf-8", "replace")) if kind in ("obj", "off") else io.BytesIO(data)
    scene = trimesh.load_scene(stream, file_type=kind, resolver={}, skip_materials=True, process=False)
    shapes = scene.dump()
    meshes = [shape for shape in shapes if isinstance(shape, trimesh.Trimesh) and len(shape.faces)]
    if meshes:
        return _surface(trimesh.util.concatenate(meshes), SURFACE_POINTS)
    found = [_vertices(shape) for shape in shapes if len(getattr(shape, "vertices", ()))]
    width = min((points.shape[1] for points in found), default=3)
    return np.concatenate([np.zeros((0, width), np.float32), *(points[:, :width] for points in found)])


def mesh_points(wrl: bytes, count: int = SURFACE_POINTS) -> np.ndarray:
    """float32 [count, 6]: places drawn evenly from the surface of a VRML file, and the normals there; [0, 6] of none.

    Raises:
        ValueError: it cannot be read, or its triangles have no area.
    """
    import trimesh

    if len(wrl) > MAX_WRL:
        raise ValueError(f"it has {len(wrl) / 2**20:,.0f} MiB of text, and at most {MAX_WRL / 2**20:,.0f} are read")
    mesh = read_vrml(wrl.decode("utf-8", "replace"))
    if not len(mesh.faces):
        return np.zeros((0, 6), np.float32)
    return _surface(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), count)


def _surface(mesh: Any, count: int) -> np.ndarray:
    """[count, 6]: places drawn evenly by area, and their normals."""
    import trimesh

    if not np.isfinite(mesh.vertices).all():
        return np.asarray(mesh.vertices, np.float32)
    if not mesh.area > 0:
        raise ValueError("its triangles have no area")
    xyz, faces = trimesh.sample.sample_surface(mesh, count, seed=0)
    return np.concatenate([xyz, mesh.face_normals[faces]], axis=1).astype(np.float32)


def _vertices(cloud: Any) -> np.ndarray:
    """[N, 3 + C]: places, then normals and colours where the file has them."""
    columns: list[Any] = [np.asarray(cloud.vertices, np.float32)]
    raw = cloud.metadata.get("_ply_raw", {}).get("vertex", {}).get("data", {})
    names = raw.dtype.names if isinstance(raw, np.ndarray) else tuple(raw)
    if names and {"nx", "ny", "nz"} <= set(names):
        columns.append(np.stack([np.asarray(raw[key]).reshape(-1) for key in ("nx", "ny", "nz")], axis=1))
    if names and {"red", "green", "blue"} <= set(names):
        columns.append(np.asarray(cloud.colors, np.float32)[:, :3] / 255)
    return np.concatenate(columns, axis=1).astype(np.float32)


def _check_ply(data: bytes) -> None:
    """The header promises no more than could be read."""
    header = data[: 2**16].split(b"end_header", 1)[0].decode("ascii", "replace")
    for line in header.splitlines():
        words = line.split()
        if words[:1] == ["element"] and (len(words) != 3 or not words[2].isdigit() or int(words[2]) > len(data)):
            raise ValueError(f"its header says `{line.strip()[:80]}`, more than the file holds")


def _check_glb(data: bytes) -> None:
    """Its JSON asks for no other file and for no more numbers than could be read."""
    if len(data) < 20 or data[:4] != b"glTF":
        raise ValueError("it does not begin as one does")
    length, chunk = struct.unpack("<I4s", data[12:20])
    tree = json.loads(data[20 : 20 + length]) if chunk == b"JSON" else None
    if not isinstance(tree, dict):
        raise ValueError("its first chunk is no JSON object")
    for item in [*_listed(tree, "buffers"), *_listed(tree, "images")]:
        if not str(item.get("uri", "data:")).startswith("data:"):
            raise ValueError("it refers to other files; save it as one file")
    numbers = sum(16 * int(item.get("count", 0)) for item in _listed(tree, "accessors"))
    if numbers > min(MAX_NUMBERS, 64 * len(data)):
        raise ValueError("it asks for more numbers than it holds")
    _check_tree([node.get("children", []) for node in _listed(tree, "nodes")])


def _listed(tree: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    for item in tree.get(key, ()):
        if not isinstance(item, dict):
            raise ValueError(f"its `{key}` are no objects")
        yield item


def _check_tree(children: list[list[int]]) -> None:
    """Each node hangs below at most one other: neither a circle nor a shape that doubles at each level."""
    seen: set[int] = set()
    for index, below in enumerate(children):
        if not all(isinstance(child, int) for child in below) or len(set(below)) != len(below):
            raise ValueError("its `nodes` name no nodes as children")
        if seen & set(below) or index in below:
            raise ValueError("its `nodes` hang below more than one other")
        seen |= set(below)
    roots = [index for index in range(len(children)) if index not in seen]
    reached = 0
    while roots:
        reached += 1
        roots.extend(child for child in children[roots.pop()] if child < len(children))
    if reached < len(children):
        raise ValueError("its `nodes` hang in a circle")
