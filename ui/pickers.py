"""How a person gives a sample of each kind, a file, a recording or words, and how it is shown."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from assembler.errors import AssemblerError
from assembler.readers import READERS
from assembler.samples import Sound

ENDINGS = {
    "image": ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"],
    "audio": ["wav", "flac", "ogg", "mp3"],
}


def sample(wants: dict[str, str], example: dict[str, Any]) -> dict[str, Any]:
    """What the user gives for each name, or what the example has; a name without either is left out."""
    found: dict[str, Any] = {}
    others = {name: kind for name, kind in wants.items() if kind != "text"}
    columns = st.columns(max(1, len(others)))
    for column, (name, kind) in zip(columns, others.items(), strict=False):
        with column, st.container(border=True):
            value = _picked(name, kind, example.get(name))
            if value is not None:
                found[name] = value
    for name in (name for name, kind in wants.items() if kind == "text"):
        given = str(example.get(name, ""))
        text = st.text_input(name, value=given, key=f"text-{name}-{given}", max_chars=4000)
        if text:
            found[name] = text
    return found


def _picked(name: str, kind: str, example: Any) -> Any:
    """A sample of one kind: what is uploaded or recorded, else the example; shown as it is."""
    st.caption(f"{name}, {kind}")
    uploaded = st.file_uploader(f"File for {name}", type=ENDINGS.get(kind), key=f"file-{name}-{kind}")
    if uploaded is None and kind in RECORDERS and st.toggle("Record", key=f"record-{name}"):
        uploaded = RECORDERS[kind](name)
    value = example
    if uploaded is not None:
        try:
            value = read_upload(kind, uploaded.name, uploaded.getvalue())
        except AssemblerError as error:
            st.error(icon=":material/error:", body="This file cannot be read:")
            st.text(str(error))
            return None
    if value is not None and kind in VIEWS:
        VIEWS[kind](value)
    return value


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
    return st.camera_input(f"Picture for {name}", key=f"camera-{name}")


def _microphone(name: str) -> Any:
    return st.audio_input(f"Sound for {name}", key=f"microphone-{name}")


def _view_image(value: Any) -> None:
    st.image(value, width=160)


def _view_sound(value: Sound) -> None:
    st.audio(value.samples, sample_rate=value.rate)
    st.caption(f"{value.seconds:.1f} s at {value.rate:,} Hz")


RECORDERS: dict[str, Callable[[str], Any]] = {"image": _camera, "audio": _microphone}
VIEWS: dict[str, Callable[[Any], None]] = {"image": _view_image, "audio": _view_sound}
