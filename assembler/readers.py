"""Files to raw samples, guarded: whatever is in a file, a sample comes out or a sentence that names it. No torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageSequence

from assembler.bundle.processor import open_image
from assembler.errors import AssemblerError, told
from assembler.meshes import open_cloud
from assembler.samples import Sound

MAX_SECONDS = 3600.0
MAX_FRAMES = 4096
MAX_PIXELS = 2**28
"""Of all frames of a video together."""
PICTURES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"])


def open_sound(path: Path) -> Sound:
    """The sound in a file of any rate and any number of channels, which are averaged into one.

    Raises:
        AssemblerError: the file is not there, is no sound that can be read, is empty or longer than an hour.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            if file.frames == 0:
                raise AssemblerError(f"{path} holds no sound at all; give a recording")
            if file.frames > MAX_SECONDS * file.samplerate:
                raise AssemblerError(f"{path} is longer than {MAX_SECONDS:g} s; cut it")
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except (OSError, RuntimeError) as error:  # soundfile's own error is a RuntimeError
        reason = "is not there; check the path" if not path.exists() else f"is no sound that can be read ({error})"
        raise AssemblerError(f"{path} {reason}") from error
    if not np.isfinite(samples).all():
        raise AssemblerError(f"{path} holds samples that are no numbers; record it again")
    return Sound(samples.mean(axis=1), rate)


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


READERS: dict[str, Callable[[Path], Any]] = {
    "image": open_image,
    "video": open_video,
    "audio": open_sound,
    "points": open_cloud,
}
"""How a file of each kind of column is opened."""
