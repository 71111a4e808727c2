"""Recorded voices: the prompts of the telephone exchange Asterisk, and the alphabets of KLettres."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from assembler.debian import Package
from assembler.files import aside
from assembler.registry import register
from assembler.rows import Row, Rows, digest
from assembler.weights import cache_folder
from components.datasets._recipe import KeyedFiles, Recipe, limited

PROMPTS = Package(
    "asterisk-core-sounds-en-wav",
    "1.6.1-1",
    "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-en-wav_1.6.1-1_all.deb",
    "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
)
ALPHABETS = Package(
    "klettres-data",
    "4:22.12.3-1",
    "pool/main/k/klettres/klettres-data_22.12.3-1_all.deb",
    "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8",
)


def _words(text: str) -> list[str]:
    return text.split()


LETTERS = "abcdefghijklmnopqrstuvwxyz"
ONES = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
)
ORDINAL_TENS = _words("twentieth thirtieth fortieth fiftieth sixtieth seventieth eightieth ninetieth")
DAYS = _words("sunday monday tuesday wednesday thursday friday saturday")
MONTHS = _words("january february march april may june july august september october november december")
SPELLING = _words(
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo "
    "sierra tango uniform victor whiskey xray yankee zulu"
)
MAGNITUDES = ("hundred", "thousand", "million", "billion")
SPOKEN_NAMES = _words(
    "activated added call-forwarding call-waiting calling cancelled disabled do-not-disturb enabled extension for "
    "goodbye hello hello-world hours is is-in-use is-set-to location lowercase minute minutes number "
    "one-moment-please please-try-again removed second seconds speed-dial telephone-number time "
    "to-call-this-number to-extension to-listen-to-it to-rerecord-it uppercase with you-entered your"
)
VOICEMAIL = _words("and extension first for from last message messages minutes no password received")


def transcripts() -> dict[str, str]:
    """File name within the English prompts -> the words that it says, where the name alone tells them."""
    found = {f"digits/{n}": word for n, word in enumerate(ONES)}
    found |= {f"digits/{10 * (n + 2)}": word for n, word in enumerate(TENS)}
    found |= {f"digits/h-{n + 1}": word for n, word in enumerate(ORDINALS)}
    found |= {f"digits/h-{10 * (n + 2)}": word for n, word in enumerate(ORDINAL_TENS)}
    found |= {f"digits/{word}": word for word in (*MAGNITUDES, "today", "tomorrow", "yesterday", "minus", "star")}
    found |= {f"digits/h-{word}": f"{word}th" for word in MAGNITUDES}
    found |= {f"digits/day-{n}": word for n, word in enumerate(DAYS)}
    found |= {f"digits/mon-{n}": word for n, word in enumerate(MONTHS)}
    found |= {f"letters/{letter}": letter for letter in LETTERS}
    found |= {f"letters/{name}": name for name in ("asterisk", "dash", "dollar", "dot", "equals", "plus", "slash")}
    found |= {f"phonetic/{word[0]}_p": word for word in SPELLING}
    found |= {name: name.replace("-", " ") for name in SPOKEN_NAMES}
    return found | {f"vm-{name}": name for name in VOICEMAIL}


@register
class Asterisk(Recipe):
    """People saying numbers, letters, the spelling alphabet, days, months and short prompts: `audio`, its `text`.

    Also `speaker` and a `question`. The files' names are their transcripts. Sources: the Debian packages
    asterisk-core-sounds-en-wav (Allison Smith, 8 kHz; CC BY-SA 3.0) and klettres-data (two more voices that say the
    letters; GPL-2). `synthetic` adds so many voices of eSpeak NG that say the same words, and `neural` so many of
    Piper's voice joe (CC0) at several pitches; their rows are learned from and never held out. A sample is known by
    the hash of its file. `label` is the place of its text among all texts, of which there are 191. Parameters: 0.
    """

    type = "dataset.asterisk"
    source = "Debian packages asterisk-core-sounds-en-wav 1.6.1-1 and klettres-data 4:22.12.3-1"
    licence = "CC BY-SA 3.0, (c) 2003-2010 Allison Smith, Digium Inc.; GPL-2, (c) 2001-2011 the authors of KLettres"
    digest = "bc18ff054cc53415ffd408114e15d97a068d050e6231272837deea5dc67d8c56"
    kinds = {"audio": "audio", "text": "text", "speaker": "text", "question": "text", "label": "label"}

    question: str = Field("Write what is said.", max_length=1000, description="the text of the column `question`")
    synthetic: int = Field(0, ge=0, le=12, description="voices of eSpeak NG that say the same words, to learn from")
    neural: int = Field(0, ge=0, le=8, description="pitches of Piper's voice joe, which says them too, to learn from")

    def prepare(self, folder: Path, say: Callable[[str], None]) -> list[Row]:
        rows = []
        for package, told in ((PROMPTS, partial(prompt, known=transcripts())), (ALPHABETS, letter)):
            say(package.name)
            package.fetch()
            for path, content in package.members():
                about = told(path)
                if about is not None:
                    raw = content.read()
                    key = digest(raw)
                    name = f"{key[:16]}{Path(path).suffix}"
                    (folder / name).write_bytes(raw)
                    rows.append({"key": key, "audio": name, "text": about[0], "speaker": about[1]})
        return sorted(rows, key=lambda row: row["key"])

    def fetch(self, base: Path, say: Callable[[str], None] = lambda what: None) -> None:
        super().fetch(base, say)
        texts = sorted({row["text"] for row in self.manifest()})
        for number, voice in enumerate(self._voices, 1):
            if not self._kept(voice).is_dir():
                say(f"voice {number} of {len(self._voices)}")
                synthesise(texts, voice, self._kept(voice))

    def made(self, row: Row) -> Row:
        return {**super().made(row), "question": self.question}

    def rows(self, base: Path) -> Rows:
        rows = self.manifest()
        texts = sorted({row["text"] for row in rows})
        made = [
            {"key": digest(f"{voice} {text}".encode()), "text": text, "speaker": f"synthetic {voice}"}
            | {"audio": f"{self._kept(voice).name}/{index}.wav"}
            for voice in self._voices
            for index, text in enumerate(texts)
        ]
        people = [{**row, "audio": f"{self.folder.name}/{row['audio']}"} for row in rows]
        labels = {text: label for label, text in enumerate(texts)}
        found = [self.made({**row, "label": labels[row["text"]]}) for row in [*people, *made]]
        return limited(Voices(found, people + made, self), self.limit)

    @property
    def _voices(self) -> list[str]:
        return [*map(str, range(self.synthetic)), *(f"joe {number}" for number in range(self.neural))]

    def _kept(self, voice: str) -> Path:
        return cache_folder() / "data" / f"{self.folder.name}-voice-{voice.replace(' ', '-')}"


class Voices(KeyedFiles):
    """Recordings of people, and of voices that are only learned from."""

    def __init__(self, rows: list[Row], prepared: Sequence[Row], recipe: Asterisk) -> None:
        keys = [row["key"] for row in prepared]
        super().__init__(rows, keys, recipe.kinds, recipe.folder.parent, recipe.type)

    def only_learned(self, index: int) -> bool:
        return self.plain(index)["speaker"].startswith("synthetic")


def prompt(path: str, known: dict[str, str]) -> tuple[str, str] | None:
    """Words and speaker of a file of the English prompts."""
    name = path.partition("en_US_f_Allison/")[2].removesuffix(".wav")
    return (known[name], "allison") if name in known else None


def letter(path: str) -> tuple[str, str] | None:
    """Words and speaker of a file of KLettres' English alphabets."""
    folder, _, file = path.removeprefix("usr/share/klettres/").partition("/alpha/")
    return (file.removesuffix(".ogg").lower(), f"klettres-{folder}") if folder in ("en", "en_GB") and file else None


def synthesise(texts: Sequence[str], voice: str, folder: Path) -> None:
    """Write every text as one synthetic voice says it, the number of eSpeak NG's or "joe NUMBER": 0.wav, 1.wav, ..."""
    import soundfile

    from components.datasets import _piper, _voices

    kind, _, number = voice.rpartition(" ")
    told = [said(text) for text in texts]
    with aside(folder) as draft:
        draft.mkdir()
        sounds = (
            _piper.spoken(told, _piper.PITCHES[int(number)])
            if kind
            else _voices.spoken(told, _voices.VOICES[int(number)])
        )
        for index, sound in enumerate(sounds):
            buffer: Any = io.BytesIO()
            soundfile.write(buffer, sound.samples, sound.rate, format="WAV", subtype="PCM_16")
            (draft / f"{index}.wav").write_bytes(buffer.getvalue())


def said(text: str) -> str:
    """The text as a voice has to be told it: letters by their names."""
    return f"{text.upper()}." if len(text) == 1 else text
