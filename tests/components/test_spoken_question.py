"""A spoken question needs the picture and the sound; what a held-out row is made of is in no other."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assembler.batches import split
from assembler.check import check
from assembler.rows import Rows, digest
from assembler.samples import Sound
from assembler.spec import parse
from components.datasets import spoken_question
from components.datasets.fashion_mnist import WORDS
from components.datasets.spoken_question import PLACES, Questions, SpokenQuestion


class Drawn(Rows):
    """`count` rows in memory, each made by `make` from its number."""

    def __init__(self, count, make, learned=lambda index: False):
        self.count, self.make, self.learned = count, make, learned

    def __len__(self):
        return self.count

    def row(self, index):
        return self.make(index)

    def key(self, index):
        return digest(str(index).encode())

    def only_learned(self, index):
        return self.learned(index)


WORDS_SAID = [word for words in PLACES for word in words]
CLOTHES = Drawn(400, lambda i: {"image": Image.new("L", (28, 28), i % 250 + 1), "label": i % 10, "word": WORDS[i % 10]})
VOICES = Drawn(
    160,
    lambda i: {"audio": Sound(np.full(800, i / 1000, np.float32), 8000), "text": WORDS_SAID[i % 16]},
    learned=lambda i: i >= 96,
)


@pytest.fixture
def questions():
    return Questions(CLOTHES, VOICES, learned=300, asked=80)


def test_the_answer_is_what_lies_in_the_place_that_is_said(questions):
    for index in (0, 7, 299, 300, 379):
        row, (pictures, place, _) = questions[index], questions.drawn(index)
        corner = row["image"].getpixel((place % 2 * 28, place // 2 * 28))
        assert corner == pictures[place] % 250 + 1 and row["answer"] == WORDS[pictures[place] % 10]
        assert row["text"] in PLACES[place] and row["place"] == place
        assert len({picture % 10 for picture in pictures}) == 4


def test_what_a_held_out_row_is_made_of_is_in_no_other_and_no_voice_in_it_is_synthetic(questions):
    def made_of(rows):
        drawn = [questions.drawn(index) for index in rows]
        return {picture for pictures, _, _ in drawn for picture in pictures}, {sound for _, _, sound in drawn}

    (seen, heard), (other, said) = made_of(range(300)), made_of(range(300, 380))
    assert not seen & other and not heard & said and max(said) < 96 <= max(heard)


def test_every_place_and_answer_comes_up_about_as_often(questions):
    places = [questions.plain(index)["place"] for index in range(300)]
    assert min(map(places.count, range(4))) > 50
    assert len({questions.plain(index)["answer"] for index in range(300)}) == 10


def test_the_set_says_itself_what_is_held_out(monkeypatch):
    monkeypatch.setattr(spoken_question.SpokenQuestion, "rows", lambda self, base: Questions(CLOTHES, VOICES, 30, 10))
    text = f"assembler: 1\nnodes: {{}}\ndata: {{type: {SpokenQuestion.type}, held_out: 0.5}}"
    learned, held = split(check(parse(text, Path("spec.yaml"))))
    assert (len(learned), len(held)) == (30, 10)
