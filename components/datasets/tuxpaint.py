"""Tux Paint's stamps: pictures and what they show in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from assembler.debian import Package
from assembler.registry import register
from assembler.rows import Row, digest
from components.datasets._recipe import Recipe

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

PACKAGE = Package(
    "tuxpaint-stamps-default",
    "2022.06.04-1",
    "pool/main/t/tuxpaint-stamps/tuxpaint-stamps-default_2022.06.04-1_all.deb",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)
ROOT = "usr/share/tuxpaint/stamps/"
SIDE = 128
ARTICLES = {"a", "an", "the", "some", "two", "this", "our"}
MEASURES = re.compile(
    r"^(?:(?:an?|the|two|some) )?(?:pair|head|bunch|clump|cluster|stack|string|pile|set|piece|couple|quarter)s? of ",
    re.IGNORECASE,
)
QUOTES = "\u201c\u201d\u2019\"'"
PARTICLES = "with of in for on at to from by as like inside ahead last that which who what because"
VERBS = "is are means mean lets stands carry carries covered used resembles hatched playing dancing making called"
ENDS = re.compile(rf"[.,!?;:\u2014(]| - |\b(?:{'|'.join([*PARTICLES.split(), *VERBS.split()])})\b")
JOINED = re.compile(r"\b(?:and|or)\b")


def noun(caption: str) -> str:
    """The head noun of a caption, the last word before its first mark, particle or verb: "A flag on a pole." -> "flag".

    Of things that are joined it is the first, of colours that are joined what has them: "A red and white rose." ->
    "rose".
    """
    text = MEASURES.sub("", caption.strip("\u2013 "))
    phrase = ENDS.split(text, maxsplit=1)[0]
    if not text.lower().startswith(("a ", "an ")):
        phrase = JOINED.split(phrase, maxsplit=1)[0]
    words = [word for word in phrase.split() if word.lower() not in ARTICLES] or phrase.split()
    return words[-1].strip(QUOTES).lower() if words else ""


@register
class TuxPaint(Recipe):
    """Stamps of the drawing program Tux Paint: `image` on white, its `caption`, the caption's `noun`, a `question`.

    Letters, figures, notes and coins (the folder symbols) are left out unless `symbols`. Source: the Debian package
    tuxpaint-stamps-default; GPL-2. Pictures are brought to at most 128 x 128 pixels; a sample is known by the hash of
    its file, and equal files are one sample. Parameters: 0.
    """

    type = "dataset.tuxpaint"
    source = "Debian package tuxpaint-stamps-default 2022.06.04-1"
    licence = "GPL-2, (c) 2002-2022 Bill Kendrick and the artists named there"
    digest = "8cffa2560c447a2e6759d8804c386810dccef3eb6b7165196adfa134d72ad19e"
    kinds = {"image": "image", "caption": "text", "noun": "text", "question": "text"}

    question: str = Field("What is this?", max_length=1000, description="the text of the column `question`")
    symbols: bool = Field(False, description="take letters, figures, notes and coins too")

    def prepare(self, folder: Path, say: Callable[[str], None]) -> list[Row]:
        import io

        from PIL import Image

        say("tuxpaint-stamps-default (161 MB)")
        PACKAGE.fetch()
        captions: dict[str, str] = {}
        pictures: dict[str, bytes] = {}
        for path, content in PACKAGE.members():
            stem, _, suffix = path.removeprefix(ROOT).rpartition(".")
            if path.startswith(ROOT) and suffix == "txt":
                captions[stem] = content.readline().decode("utf-8").strip()
            elif path.startswith(ROOT) and suffix == "png":
                pictures[stem] = content.read()
        rows: dict[str, Row] = {}
        for stem in sorted(pictures.keys() & captions.keys()):
            key, caption = digest(pictures[stem]), captions[stem]
            if not caption or key in rows:
                continue
            on_white(Image.open(io.BytesIO(pictures[stem]))).save(folder / f"{key[:16]}.png")
            group = stem.partition("/")[0]
            rows[key] = {"image": f"{key[:16]}.png", "caption": caption, "group": group}
        return [{"key": key, **row} for key, row in sorted(rows.items())]

    def chosen(self, row: Row) -> bool:
        return self.symbols or row["group"] != "symbols"

    def made(self, row: Row) -> Row:
        return {**super().made(row), "noun": noun(row["caption"]), "question": self.question}


def on_white(image: Picture) -> Picture:
    """A picture on white paper, at most 128 pixels wide and high."""
    from PIL import Image

    image = image.convert("RGBA")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")
