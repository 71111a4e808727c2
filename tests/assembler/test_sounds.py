"""Sound files of any rate and number of channels come in; whatever else is in a file is a sentence that names it."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.bundle.manifest import SoundProcessor
from assembler.bundle.processor import tensors
from assembler.errors import AssemblerError
from assembler.readers import open_sound


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32) / 2


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_every_format_comes_in_whole_and_cut_off_it_is_refused(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, tone(1, 16_000), 16_000)
    assert len(open_sound(path).samples) == 16_000
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AssemblerError, match=rf"a\.{ending} (is cut off|is no sound|holds no sound)"):
        open_sound(path)


@settings(max_examples=12, deadline=None)
@given(rate=st.sampled_from([8000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000]), channels=st.integers(1, 8))
def test_any_rate_and_channels_give_the_same_tone_at_the_rate_that_is_wanted(rate, channels, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "tone.wav"
    soundfile.write(path, np.repeat(tone(0.5, rate)[:, None], channels, 1), rate, subtype="FLOAT")
    found = tensors(open_sound(path), SoundProcessor(rate=16_000, samples=12_000), True, Path.cwd())
    assert abs(int(found["mask"].sum()) - 8000) <= 1
    np.testing.assert_allclose(found[""][200:7800], tone(0.5, 16_000)[200:7800], atol=5e-3)


def test_eight_channels_at_the_highest_rate_are_one_sound(tmp_path):
    path = tmp_path / "studio.flac"
    soundfile.write(path, np.repeat(tone(0.2, 192_000)[:, None], 8, 1), 192_000, subtype="PCM_24")
    sound = open_sound(path)
    assert sound.rate == 192_000 and sound.samples.shape == (38_400,)
    assert len(tensors(sound, SoundProcessor(rate=16_000, samples=8000), True, tmp_path)[""]) == 8000


def patched(path: Path, offset: int, form: str, number: int) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, number)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "form", "number", "sentence"),
    [
        (22, "<H", 60_000, "is no sound that can be read"),
        (24, "<I", 0, "is no sound that can be read"),
        (24, "<I", 2**31 - 1, "which no recording has"),
        (24, "<I", 1, "which no recording has"),
        (40, "<I", 1_000_000, "32000 of 1000000 bytes"),
    ],
)
def test_a_header_that_lies_is_refused(offset, form, number, sentence, tmp_path):
    path = tmp_path / "lies.wav"
    soundfile.write(path, tone(1, 16_000), 16_000)
    patched(path, offset, form, number)
    with pytest.raises(AssemblerError, match=rf"lies\.wav .*{sentence}"):
        open_sound(path)


def test_a_stream_whose_length_was_not_known_is_read(tmp_path):
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(1, 16_000), 16_000)
    patched(path, 40, "<I", 2**32 - 1)
    assert len(open_sound(path).samples) == 16_000


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [([0.5], "1 samples long, too short"), ([], "no sound at all"), ([0.1, np.nan] * 500, "no numbers")],
)
def test_what_is_no_recording_is_refused(samples, sentence, tmp_path):
    path = tmp_path / "bad.wav"
    soundfile.write(path, np.array(samples, np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(AssemblerError, match=rf"bad\.wav .*{sentence}"):
        open_sound(path)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damaged_bytes_are_a_sound_or_a_sentence(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f"damaged.{data.draw(st.sampled_from(['wav', 'flac', 'ogg']))}"
    soundfile.write(path, tone(0.1, 8000), 8000)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content), 120) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        assert np.isfinite(open_sound(path).samples).all()
    except AssemblerError as error:
        assert path.name in str(error)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(AssemblerError, match=r"gone\.wav is not there"):
        open_sound(tmp_path / "gone.wav")
