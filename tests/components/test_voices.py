"""A synthetic voice is told how words sound."""

import pytest

from assembler.errors import AssemblerError
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
