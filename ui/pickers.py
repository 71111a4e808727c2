"""How a person gives a sample of each kind, a file, a recording or words, and how it is shown."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image

from assembler.errors import AssemblerError
from assembler.readers import READERS
from assembler.samples import Cell, Cloud, Sound
from ui import cells, show
from ui.cloud import cloud

FRAMES = 6
"""Of a video, shown."""
ENDINGS = {
    "image": ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"],
    "audio": ["wav", "flac", "ogg", "mp3"],
    "video": ["gif", "webp", "png"],
    "points": ["ply", "obj", "stl", "off", "glb", "wrl", "npy"],
}


def sample(wants: dict[str, str], examples: Sequence[dict[str, Any]], index: int | None) -> dict[str, Any]:
    """What the user gives for each name, or what the chosen example has; a name without either is left out."""
    example = {} if index is None else examples[index]
    found: dict[str, Any] = {}
    others = {name: kind for name, kind in wants.items() if kind != "text"}
    for name, kind in others.items():
        with st.container(border=True):
            if kind == "expression":
                value = _cell(name, [row[name] for row in examples if name in row], index)
            else:
                value = _picked(name, kind, example.get(name))
            if value is not None:
                found[name] = value
    for name in (name for name, kind in wants.items() if kind == "text"):
        given = str(example.get(name, ""))
        text = st.text_input(show.escaped(name), value=given, key=f"text-{name}-{given}", max_chars=4000)
        if text:
            found[name] = text
    return found


def _picked(name: str, kind: str, example: Any) -> Any:
    """A sample of one kind: what is uploaded or recorded, else the example; shown as it is."""
    st.caption(f"{show.escaped(name)}, {kind}")
    uploaded = st.file_uploader(f"File for {show.escaped(name)}", type=ENDINGS.get(kind), key=f"file-{name}-{kind}")
    if uploaded is None and kind in RECORDERS and st.toggle("Record", key=f"record-{name}"):
        uploaded = RECORDERS[kind](name)
    value = example
    if uploaded is not None:
        try:
            value = read_upload(kind, uploaded.name, uploaded.getvalue())
        except AssemblerError as error:
            show.error(str(error))
            return None
    if value is not None and kind in VIEWS:
        VIEWS[kind](name, value)
    return value


def _cell(name: str, examples: list[Cell], index: int | None) -> Cell | None:
    """A cell of an uploaded file, else the example; shown among the other cells of where it comes from."""
    st.caption(f"{show.escaped(name)}, expression")
    uploaded = st.file_uploader(f"File for {show.escaped(name)}", type=["h5ad"], key=f"file-{name}-expression")
    if uploaded is not None:
        try:
            cell, others, place = cells.chosen(name, cells.opened(uploaded.name, uploaded.getvalue()))
        except AssemblerError as error:
            show.error(str(error))
            return None
    elif index is not None and index < len(examples):
        cell, others, place = examples[index], examples, index
    else:
        return None
    cells.show_cell(cell, others, place)
    return cell


def read_upload(kind: str, name: str, content: bytes) -> Any:
    """An uploaded file as a sample, by the same guarded readers that data sets use.

    Raises:
        AssemblerError: it is none of that kind; the sentence names the file as the user knows it.
    """
    reader = READERS.get(kind)
    if reader is None:
        raise AssemblerError(f"files of the kind {kind} cannot be read here yet")
    ending = re.sub(r"[^a-z0-9.]", "", "".join(Path(name).suffixes[-2:]).lower())[:16]
    with tempfile.TemporaryDirectory(prefix="assembler-") as folder:
        path = Path(folder) / f"upload{ending}"
        path.write_bytes(content)
        try:
            return reader(path)
        except AssemblerError as error:
            raise AssemblerError(str(error).replace(str(path), name)) from error


def _camera(name: str) -> Any:
    return st.camera_input(f"Picture for {show.escaped(name)}", key=f"camera-{name}")


def _microphone(name: str) -> Any:
    return st.audio_input(f"Sound for {show.escaped(name)}", key=f"microphone-{name}")


def _view_image(name: str, value: Image.Image) -> None:
    st.image(value, width=160)


def _view_video(name: str, value: Sequence[Image.Image]) -> None:
    shown = [value[round(i * (len(value) - 1) / (FRAMES - 1))] for i in range(FRAMES)] if value else []
    st.image(shown, width=72)
    st.caption(f"{len(value)} frames")


def _view_sound(name: str, value: Sound) -> None:
    st.audio(value.samples, sample_rate=value.rate)
    st.caption(f"{value.seconds:.1f} s at {value.rate:,} Hz")


def _view_cloud(name: str, value: Cloud) -> None:
    cloud(value.points, key=f"cloud-{name}")
    st.caption(f"{len(value.points):,} points; drag to turn")


RECORDERS: dict[str, Callable[[str], Any]] = {"image": _camera, "audio": _microphone}
VIEWS: dict[str, Callable[[str, Any], None]] = {
    "image": _view_image,
    "video": _view_video,
    "audio": _view_sound,
    "points": _view_cloud,
}
