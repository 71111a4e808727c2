"""Prompt templates: slots, braces, and where the answer may stand."""

import pytest

from assembler.template import parse, slots


def test_doubled_braces_are_braces_and_no_slots():
    text = "{{not a slot}} {photo} {{}} {answer}"
    assert slots(text) == ["photo", "answer"]
    assert "".join(piece + (f"<{slot}>" if slot else "") for piece, slot in parse(text)) == (
        "{not a slot} <photo> {} <answer>"
    )


@pytest.mark.parametrize("text", ["{answer} more", "{answer}{photo}", "{answer} }}", "{photo} {answer} {{"])
def test_nothing_follows_the_answer(text):
    with pytest.raises(ValueError, match="goes on after"):
        parse(text)


def test_space_may_follow_the_answer():
    assert slots("{photo} {answer} \n") == ["photo", "answer"]
