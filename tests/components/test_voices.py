"""A synthetic voice is told how words sound; numerals that Whisper's decoder writes are spelled out as prompts are."""

import numpy as np
import pytest

from assembler.errors import AssemblerError
from benchmarks._sense_spoken_words import faster, spelled
from components.datasets._piper import phoneme_ids, phonemes

KNOWN = {sound: [number] for number, sound in enumerate("_^$. \u02c8abiklotuw\u02d0")}


def test_a_voice_reads_american_english_and_goes_on_past_a_comma():
    assert phonemes("two") == "t\u02c8u\u02d0" and phonemes("two, two") == "t\u02c8u\u02d0 t\u02c8u\u02d0"


def test_every_sound_has_padding_after_it_and_a_full_stop_ends_them():
    ids = phoneme_ids("tu\u02d0", KNOWN)
    names = {number: sound for sound, (number,) in KNOWN.items()}
    assert "".join(names[i] for i in ids) == "^_t_u_\u02d0_._$"
    with pytest.raises(AssemblerError, match="has no sound '\u0292'"):
        phoneme_ids("a\u0292", KNOWN)


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ("14.", "fourteen."),
        ("70th and 100", "seventieth and hundred"),
        ("The 2nd of 21", "The second of 21"),
        ("50S", "50S"),
    ],
)
def test_numerals_are_spelled_out(heard, told):
    assert spelled(heard) == told


def test_a_step_that_takes_six_times_as_long_is_told():
    found = faster(np.array([6.0] * 9 + [1.0] * 10), 9)
    assert found.score == 6 and found.interval == (6, 6) and found.met
    assert not faster(np.array([4.0] * 9 + [1.0] * 10), 9).met
