"""Files to raw samples, guarded: whatever is in a file, a sample comes out or a sentence that names it. No torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assembler.bundle.processor import open_image
from assembler.errors import AssemblerError
from assembler.samples import Sound

MAX_SECONDS = 3600.0


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


READERS: dict[str, Callable[[Path], Any]] = {"image": open_image, "audio": open_sound}
"""How a file of each kind of column is opened."""
