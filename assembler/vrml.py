"""The meshes of VRML 2.0 files (.wrl): their IndexedFaceSets, where nothing moves or repeats them.

Only this much of the language is read, in one pass and with nothing executed or fetched; what would place, repeat,
choose or include other shapes is refused, so that a mesh is either the file's own or not there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

ASIDE = re.compile(r'"[^"]*"|#[^\n]*|\bTextureCoordinate\s*\{[^{}]*\}')
TOKEN = re.compile(
    r"\b(?:(?P<shape>IndexedFaceSet|IndexedLineSet|PointSet)\s*\{|(?P<list>point|coordIndex)\s*\[(?P<numbers>[^\[\]{}]*)\]"
    r"|(?P<other>Transform|Inline|PROTO|EXTERNPROTO|Switch|LOD|Billboard|ROUTE|Script|Extrusion|ElevationGrid|Box|Cone"
    r"|Cylinder|Sphere|coord\s+USE|geometry\s+USE)\b)"
)


class Mesh(NamedTuple):
    """`vertices` float64 [V, 3] and triangles `faces` int64 [F, 3] of them."""

    vertices: np.ndarray
    faces: np.ndarray


def read_vrml(text: str) -> Mesh:
    """All face sets of a file as one mesh; a face of more than three corners becomes a fan of triangles. Lines and
    points of their own are left out.

    Raises:
        ValueError: it is no VRML 2.0, has more than plain face sets in it, or a list in it is not as it must be.
    """
    if not text.startswith("#VRML V2.0"):
        raise ValueError("it does not begin with #VRML V2.0")
    points: list[np.ndarray] = []
    faces: list[np.ndarray] = []
    lists: dict[str, str] = {}
    before, solid = 0, False
    for token in TOKEN.finditer(ASIDE.sub(" ", text)):
        if token["other"]:
            raise ValueError(f"its `{token['other']}` is not read here; save it as one mesh, such as ply or stl")
        if token["shape"]:
            lists, solid = {}, token["shape"] == "IndexedFaceSet"
            continue
        lists[token["list"]] = token["numbers"].replace(",", " ")
        if solid and len(lists) == 2:
            place, corners = _shape(lists["point"], lists["coordIndex"])
            points.append(place)
            faces.append(corners + before)
            before += len(place)
            lists = {}
    return Mesh(
        np.concatenate([np.zeros((0, 3)), *points]),
        np.concatenate([np.zeros((0, 3), np.int64), *faces]),
    )


def _shape(point: str, index: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [V, 3] and triangles [F, 3] of one face set."""
    numbers, corners = np.array(point.split(), np.float64), np.array(index.split(), np.int64)
    if len(numbers) % 3:
        raise ValueError("a `point` list is no whole number of places")
    if len(corners) and (corners.min() < -1 or corners.max() >= len(numbers) // 3):
        raise ValueError("a `coordIndex` names a point that is not there")
    return numbers.reshape(-1, 3), _fans(corners)


def _fans(corners: np.ndarray) -> np.ndarray:
    """Triangles [F, 3] of faces that are written one after the other, each ended by -1."""
    ends = np.flatnonzero(corners == -1)
    if len(corners) and corners[-1] != -1:
        ends = np.append(ends, len(corners))
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    sizes = np.maximum(ends - starts - 2, 0)  # triangles of each face
    first = np.repeat(starts, sizes)
    step = np.arange(len(first)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1).reshape(-1, 3)
