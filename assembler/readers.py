"""Files to raw samples, guarded: whatever is in a file, a sample comes out or a sentence that names it. No torch."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from assembler.bundle.processor import open_image
from assembler.errors import AssemblerError, told
from assembler.meshes import open_cloud
from assembler.samples import Cell, Sound

MIN_SECONDS, MAX_SECONDS = 0.01, 3600.0
MAX_VALUES = 2**29
"""Samples of all channels together."""
RATES = (1000, 768_000)
WHOLE = 0.95
"""Share of the samples that a header promises which has to be there; an MP3's header may only estimate them."""
STREAMED = 2**31 - 2**16
"""A size in a header from which on it says that the size was not known when the file was begun."""
MAX_FRAMES = 4096
MAX_PIXELS = 2**28
"""Of all frames of a video together."""
PICTURES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"])


class Held(io.BytesIO):
    """A file's content in memory, called `name`, for the readers of pictures and sounds."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name

    def __str__(self) -> str:
        return self.name

    def exists(self) -> bool:
        """It is there."""
        return True


def open_sound(path: Path | Held) -> Sound:
    """The sound in a file of any rate and any number of channels, which are averaged into one.

    Raises:
        AssemblerError: the file is not there, is no sound that can be read, is cut off, too short or too long, or holds
            what is no number.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            _check_sound(path, file)
            samples = file.read(dtype="float32", always_2d=True)
            stated, rate = file.frames, file.samplerate
    except (OSError, RuntimeError) as error:  # soundfile's own error is a RuntimeError
        reason = "is not there; check the path" if not path.exists() else f"is no sound that can be read ({error})"
        raise AssemblerError(f"{path} {reason}") from error
    if len(samples) < WHOLE * stated:
        raise AssemblerError(f"{path} is cut off: {len(samples):,} of {stated:,} samples are there; copy it again")
    if not np.isfinite(samples).all():
        raise AssemblerError(f"{path} holds samples that are no numbers; record it again")
    return Sound(samples.mean(axis=1), rate)


def _check_sound(path: Path | Held, file: Any) -> None:
    """Refuse what a header promises, before anything is read."""
    rate, frames = file.samplerate, file.frames
    if frames == 0:
        raise AssemblerError(f"{path} holds no sound at all; give a recording")
    if not RATES[0] <= rate <= RATES[1]:
        raise AssemblerError(f"{path} says that it has {rate:,} samples a second, which no recording has; convert it")
    if frames < MIN_SECONDS * rate:
        raise AssemblerError(f"{path} is {frames} samples long, too short to hear; give {MIN_SECONDS:g} s or more")
    if frames > MAX_SECONDS * rate or frames * file.channels > MAX_VALUES:
        raise AssemblerError(f"{path} is longer than {MAX_SECONDS:g} s or has too many channels; cut it")
    cut = re.search(
        r"(?:data|SSND) : (\d+) \(should be (\d+)\)", file.extra_info
    )  # what the header says, what is there
    if cut is not None and int(cut[2]) < int(cut[1]) < STREAMED:
        raise AssemblerError(f"{path} is cut off: {cut[2]} of {cut[1]} bytes are there; copy it again")


def open_video(path: Path) -> list[Image.Image]:
    """The frames of an animated GIF, WebP or PNG, or of a folder of pictures, in the order of the numbers in their
    names.

    Raises:
        AssemblerError: it is not there, a frame cannot be read, there are none, or more than are read.
    """
    if path.is_dir():
        files = sorted((file for file in path.iterdir() if file.suffix.lower() in PICTURES), key=_numbered)
        return _frames(path, (open_image(file) for file in files))
    if not path.exists():
        raise AssemblerError(f"{path} is not there; check the path")
    if path.suffix.lower() not in PICTURES:
        raise AssemblerError(
            f"{path} is no folder of frames and no animated picture, and films are not decoded here; "
            "make its frames first, for example with `ffmpeg -i FILM FOLDER/%05d.png`, and name the folder"
        )
    with told(f"{path} is no animated picture that can be read"), Image.open(path) as film:
        return _frames(path, (frame.copy() for frame in ImageSequence.Iterator(film)))


def _frames(path: Path, frames: Iterable[Image.Image]) -> list[Image.Image]:
    found, pixels = [], 0
    for frame in frames:
        found.append(frame)
        pixels += frame.width * frame.height
        if len(found) > MAX_FRAMES or pixels > MAX_PIXELS:
            raise AssemblerError(
                f"{path} has more than {MAX_FRAMES:,} frames or {MAX_PIXELS:,} pixels in all; leave frames out"
            )
    if not found:
        raise AssemblerError(f"{path} holds no frames; put pictures in it")
    return found


def _numbered(file: Path) -> tuple[list[tuple[int, str]], str]:
    """2.png before 10.png; the whole name decides between 2.png and 02.png."""
    words = re.findall(r"\d+|\D+", file.name)
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words], file.name


def open_cell(path: Path) -> Cell:
    """The one cell of an h5ad file.

    Raises:
        AssemblerError: it cannot be read, or holds several.
    """
    from assembler.h5ad import H5ad

    file = H5ad(path)
    if len(file) != 1:
        raise AssemblerError(f"{path} holds {len(file):,} cells, and one is wanted; read such a file with dataset.h5ad")
    return file.cell(0)


READERS: dict[str, Callable[[Path], Any]] = {
    "image": open_image,
    "video": open_video,
    "audio": open_sound,
    "points": open_cloud,
    "expression": open_cell,
}
"""How a file of each kind of column is opened."""
