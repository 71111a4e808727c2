"""KiCad's models of electronic parts: meshes and the family that each belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import Field

from assembler.debian import Package
from assembler.registry import register
from assembler.rows import Row, digest
from components.datasets._recipe import Recipe

PACKAGE = Package(
    "kicad-packages3d",
    "6.0.10-1",
    "pool/main/k/kicad-packages3d/kicad-packages3d_6.0.10-1_all.deb",
    "e4ee3179c3935885a262e41543a675208ad5b3077d348728cac46f534d01109a",
)
ROOT = "usr/share/kicad/3dmodels/"
FAMILIES = {
    "Button_Switch_SMD": "switch",
    "Button_Switch_THT": "switch",
    "Capacitor_THT": "capacitor",
    "Connector_JST": "connector",
    "Connector_Molex": "connector",
    "Crystal": "crystal",
    "Diode_THT": "diode",
    "Inductor_THT": "inductor",
    "LED_SMD": "LED",
    "LED_THT": "LED",
    "Package_TO_SOT_THT": "transistor",
    "Relay_THT": "relay",
    "Resistor_THT": "resistor",
}
"""Folder of the package -> family in a word. Folders come by the alphabet, so reading stops after these."""

WORDS = tuple(sorted(set(FAMILIES.values())))
POINTS = 2048
OF_A_SERIES = 12
PLAIN = {"mm", "Clear", "IRBlack", "IRGrey", "RGB", "HandSoldering"}


def series(folder: str, name: str) -> str:
    """What a file's name says beside sizes, pin counts, pitch and colour: parts of one series are near copies.

    `Diode_THT`, `D_DO-41_SOD81_P10.16mm_Horizontal` -> `diode DO SOD Horizontal`.
    """
    return " ".join([FAMILIES[folder], *(x for x in re.findall(r"[A-Za-z]{2,}", name) if x not in PLAIN)])


@register
class Kicad(Recipe):
    """CAD meshes of electronic parts: `cloud`, its `family` in a word of ten, that word's `label`, and a `question`.

    A cloud has 2,048 places drawn evenly from the mesh's surface and the normals there, in units of 2.54 mm. Also
    `series`: the name without sizes, pin counts, pitch and colour. Parts of a series are near copies of each other, so
    a sample is known by its series: a series is held out as a whole, and at most 12 of its meshes are taken, by their
    hash. Equal meshes are one sample. Source: the Debian package kicad-packages3d, read as far as it is needed and
    never unpacked; CC-BY-SA 4.0 with KiCad's exception for designs, some files GPL-3+. Parameters: 0.
    """

    type = "dataset.kicad"
    source = "Debian package kicad-packages3d 6.0.10-1"
    licence = (
        "CC-BY-SA 4.0 with KiCad's exception for designs, some files GPL-3+; (c) 2017-2022 KiCad Community and others"
    )
    digest = "2e4d435148c817d6010a6185b6713d590e7647877e288d8604747390f5f65d62"
    kinds = {"cloud": "points", "family": "text", "label": "label", "series": "text", "question": "text"}

    question: str = Field("Which part is this?", max_length=1000, description="the text of the column `question`")

    def prepare(self, folder: Path, say: Callable[[str], None]) -> list[Row]:
        import numpy as np

        from assembler.meshes import mesh_points

        say("kicad-packages3d (379 MB)")
        PACKAGE.fetch()
        found: dict[str, dict[str, bytes]] = {}
        for place, name, content in meshes():
            found.setdefault(series(place, name), {})[digest(content)] = content
        rows, seen = [], set()
        for name, files in sorted(found.items()):
            say(name)
            taken = 0
            for key, content in sorted(files.items()):
                shape = solid(content)
                if shape is None or shape in seen or taken == OF_A_SERIES:
                    continue
                seen.add(shape)
                np.save(folder / f"{key[:16]}.npy", mesh_points(content, POINTS))
                rows.append({"key": name, "cloud": f"{key[:16]}.npy", "series": name, "sha256": key})
                taken += 1
        return rows

    def made(self, row: Row) -> Row:
        family = next(word for word in WORDS if row["series"].startswith(f"{word} "))
        return {**super().made(row), "family": family, "label": WORDS.index(family), "question": self.question}


def meshes() -> Iterator[tuple[str, str, bytes]]:
    """(folder, file name without suffix, content) of every VRML file of the chosen folders."""
    for path, content in PACKAGE.members():
        if not path.startswith(ROOT):
            continue
        folder, _, name = path.removeprefix(ROOT).partition(".3dshapes/")
        if folder > max(FAMILIES):
            return
        if folder in FAMILIES and name.endswith(".wrl"):
            yield folder, name.removesuffix(".wrl"), content.read()


def solid(content: bytes) -> str | None:
    """The digest of a mesh's vertices and faces, whatever it is painted with; None of what is no plain mesh."""
    from assembler.vrml import read_vrml

    try:
        mesh = read_vrml(content.decode("utf-8", "replace"))
    except ValueError:
        return None
    return digest(mesh.vertices.tobytes() + mesh.faces.tobytes()) if len(mesh.faces) else None
