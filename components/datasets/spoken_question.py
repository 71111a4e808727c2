"""Pictures of four clothes and a recorded word that says which of them is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from assembler.part import DatasetPart
from assembler.registry import register
from assembler.rows import Row, Rows, digest
from components.datasets.asterisk import Asterisk
from components.datasets.fashion_mnist import SIDE, WORDS, FashionMnist

PLACES = (
    ("one", "first", "a", "alpha"),
    ("two", "second", "b", "bravo"),
    ("three", "third", "c", "charlie"),
    ("four", "fourth", "d", "delta"),
)
"""The words for each place of the picture, row by row."""
HELD_OUT = {"picture": 0.1, "recording": 0.5}
"""The share of each that only held-out rows are made of."""


@register
class SpokenQuestion(DatasetPart):
    """Four pieces of clothing in a square, `image` 56 x 56, and a recorded word, `audio`, such as "third" or "bravo",
    that says which of them is asked for: `answer` names it, and `label` is its number 0-9. Also `text`, the word, and
    the `place` 0-3.

    Made of dataset.fashion_mnist and dataset.asterisk, with their licences; the four are of different kinds, so that
    without the sound one answer in four is right, and without the picture one in ten. A picture of clothing or a
    recording of a person in a held-out row is in no other: a hash of each settles its side. Parameters: 0.
    """

    type = "dataset.spoken_question"

    learned: int = Field(3000, ge=1, le=1_000_000, description="rows to learn from")
    asked: int = Field(400, ge=1, le=100_000, description="rows held out")
    synthetic: int = Field(12, ge=0, le=12, description="voices of eSpeak NG that say the words too, to learn from")
    neural: int = Field(0, ge=0, le=8, description="pitches of Piper's voice joe, which says them too, to learn from")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"data": {"type": cls.type, "options": {"learned": 8, "asked": 4}}}, None)]

    def fields(self, base: Path) -> dict[str, str]:
        texts = dict.fromkeys(("answer", "text"), "text")
        return {"image": "image", "audio": "audio", **texts, "label": "label", "place": "label"}

    def fetch(self, base: Path, say: Callable[[str], None] = lambda what: None) -> None:
        for part in (FashionMnist(), self._voices):
            part.fetch(base, say)

    def rows(self, base: Path) -> Rows:
        return Questions(FashionMnist().rows(base), self._voices.rows(base), self.learned, self.asked)

    @property
    def _voices(self) -> Asterisk:
        return Asterisk(synthetic=self.synthetic, neural=self.neural)


class Questions(Rows):
    """Rows that are drawn, the same on every computer, from pictures and recordings: `learned` and then `asked`."""

    def __init__(self, clothes: Rows, voices: Rows, learned: int, asked: int) -> None:
        self.clothes, self.voices = clothes, voices
        self.learned, self.asked = learned, asked
        self.pictures: dict[bool, list[list[int]]] = {held: [[] for _ in WORDS] for held in (False, True)}
        for index in range(len(clothes)):
            self.pictures[_held("picture", clothes.key(index))][clothes.plain(index)["label"]].append(index)
        self.recordings: dict[bool, list[list[int]]] = {held: [[] for _ in PLACES] for held in (False, True)}
        places = {word: place for place, words in enumerate(PLACES) for word in words}
        for index in range(len(voices)):
            place = places.get(voices.plain(index)["text"])
            if place is not None:
                held = not voices.only_learned(index) and _held("recording", voices.key(index))
                self.recordings[held][place].append(index)

    def __len__(self) -> int:
        return self.learned + self.asked

    def drawn(self, index: int) -> tuple[list[int], int, int]:
        """The four pictures of a row, the place that is asked for, and the recording that says so."""
        held, key = self.only_held_out(index), self.key(index)
        kinds = sorted(range(len(WORDS)), key=lambda kind: digest(f"{key} {kind}".encode()))[: len(PLACES)]
        pictures = [_pick(self.pictures[held][kind], f"{key} picture {kind}") for kind in kinds]
        place = _pick(range(len(PLACES)), f"{key} place")
        return pictures, place, _pick(self.recordings[held][place], f"{key} recording")

    def plain(self, index: int) -> Row:
        pictures, place, recording = self.drawn(index)
        asked, text = self.clothes.plain(pictures[place]), self.voices.plain(recording)["text"]
        return {"answer": asked["word"], "text": text, "label": asked["label"], "place": place}

    def row(self, index: int) -> Row:
        from PIL import Image

        pictures, _, recording = self.drawn(index)
        square = Image.new("L", (2 * SIDE, 2 * SIDE))
        for place, picture in enumerate(pictures):
            square.paste(self.clothes[picture]["image"], (place % 2 * SIDE, place // 2 * SIDE))
        return {"image": square, "audio": self.voices[recording]["audio"], **self.plain(index)}

    def key(self, index: int) -> str:
        return f"asked {index - self.learned}" if index >= self.learned else f"learned {index}"

    def place(self, index: int) -> str:
        return f"{SpokenQuestion.type} row {index}"

    def only_learned(self, index: int) -> bool:
        return index < self.learned

    def only_held_out(self, index: int) -> bool:
        return index >= self.learned


def _share(text: str) -> float:
    """A number from 0 to 1 that the text settles."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def _held(what: str, key: str) -> bool:
    return _share(f"{what} {key}") < HELD_OUT[what]


def _pick(items: Any, text: str) -> Any:
    return items[int(_share(text) * len(items))]
