"""Synthetic voices: eSpeak NG through its C interface, the same samples for the same words on every call."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assembler.errors import AssemblerError
from assembler.samples import Sound

SYNCHRONOUS, UTF8, RATE, PITCH = 2, 1, 1, 3
SAMPLES = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Voice:
    """A voice of eSpeak NG with its variant, words a minute and pitch (0 to 100)."""

    name: str
    rate: int = 160
    pitch: int = 50


VOICES = (
    Voice("en-us"),
    Voice("en-us+f2", 150, 60),
    Voice("en+m3", 150, 40),
    Voice("en-us+f4", 170, 65),
    Voice("en+f3", 140, 55),
    Voice("en-us+m7", 165, 45),
    Voice("en-gb-scotland+m5", 155, 50),
    Voice("en-us+f5", 135, 70),
    Voice("en-us+m1", 180, 35),
    Voice("en+f1", 160, 75),
    Voice("en-us+m4", 130, 55),
    Voice("en-us+f3", 185, 50),
)


def spoken(texts: Sequence[str], voice: Voice) -> Iterator[Sound]:
    """Each text as the voice says it.

    Raises:
        AssemblerError: eSpeak NG is not installed, or has no such voice.
    """
    library, rate = engine()
    heard: list[np.ndarray] = []

    def take(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    keep = SAMPLES(take)  # the engine calls it as long as it speaks
    library.espeak_SetSynthCallback(keep)
    if library.espeak_SetVoiceByName(voice.name.encode()):
        raise AssemblerError(f"eSpeak NG has no voice {voice.name}")
    library.espeak_SetParameter(RATE, voice.rate, 0)
    library.espeak_SetParameter(PITCH, voice.pitch, 0)
    for text in texts:
        heard.clear()
        words = text.encode() + b"\0"
        library.espeak_Synth(words, len(words), 0, 1, 0, UTF8, None, None)
        library.espeak_Synchronize()
        yield Sound(np.concatenate(heard).astype(np.float32) / 32768, rate)


def engine() -> tuple[Any, int]:
    """The library, ready to speak, and its samples a second."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise AssemblerError(
            "synthetic voices need eSpeak NG: pip install espeakng-loader (GPL-3), or set `synthetic: 0`"
        ) from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise AssemblerError("eSpeak NG does not start; install espeakng-loader again, or set `synthetic: 0`")
    return library, rate
