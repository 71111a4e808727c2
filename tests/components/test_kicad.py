"""Parts of KiCad's library: near copies share a series, and a series stays on one side of the split."""

import numpy as np
import pytest

from assembler.batches import split
from assembler.check import check
from assembler.errors import AssemblerError
from assembler.spec import parse
from components.datasets import kicad
from components.datasets.kicad import Kicad, series
from tests.components.test_recipes import deb


def wrl(size: float, red: float = 0.5) -> bytes:
    points = f"0 0 0, {size} 0 0, 0 1 0, 0 0 1"
    shape = f"geometry IndexedFaceSet {{ coord Coordinate {{ point [{points}] }} coordIndex [0 1 2 -1 0 1 3 -1] }}"
    material = f"appearance Appearance {{ material Material {{ diffuseColor {red} 0 0 }} }}"
    return f"#VRML V2.0 utf8\nShape {{ {material} {shape} }}\n".encode()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSEMBLER_CACHE", str(tmp_path))
    files = {f"Diode_THT/D_DO-41_P{n}.00mm": wrl(n) for n in range(1, 15)}
    files |= {"LED_THT/LED_D3.0mm": wrl(20), "LED_THT/LED_D3.0mm_Clear": wrl(20, red=0.9)}
    files |= {"Relay_THT/Relay_SPDT_HJR": b"#VRML V2.0 utf8\nTransform {}", "Battery/Holder": wrl(21)}
    members = {f"./{kicad.ROOT}{name.replace('/', '.3dshapes/')}.wrl": content for name, content in files.items()}
    first, last = {"./usr/share/doc/kicad/copyright": b""}, {f"./{kicad.ROOT}Sensor.3dshapes/S.wrl": wrl(22)}
    package = deb(tmp_path / "debian" / "k.deb", {**first, **dict(sorted(members.items())), **last})
    monkeypatch.setattr(kicad, "PACKAGE", package)
    with pytest.raises(AssemblerError, match="has the digest") as told:
        Kicad().fetch(tmp_path)
    monkeypatch.setattr(Kicad, "digest", str(told.value).split("digest ")[1].split(",")[0])
    Kicad().fetch(tmp_path)
    return tmp_path


def test_a_series_is_capped_and_equal_meshes_are_one(parts):
    rows = Kicad().rows(parts)
    found = [rows.plain(i) for i in range(len(rows))]
    assert [row["series"] for row in found] == ["LED LED"] + ["diode DO"] * 12
    assert {(row["family"], row["label"]) for row in found} == {("LED", 0), ("diode", 4)}
    points = rows[0]["cloud"].points
    assert points.shape == (2048, 6) and np.allclose(np.linalg.norm(points[:, 3:], axis=1), 1, atol=1e-5)


def test_no_series_is_on_both_sides(parts):
    for seed in range(8):
        text = f"""
assembler: 1
nodes:
  cloud: {{type: input.points, points: 16}}
  eyes: {{type: encoder.pointnet2}}
  kind: {{type: head.classifier, classes: 10}}
edges: [cloud -> eyes, eyes -> kind]
data: {{type: dataset.kicad, held_out: 0.3, seed: {seed}}}
"""
        try:
            learned, held_out = split(check(parse(text, parts / "spec.yaml")))
        except AssemblerError as error:
            assert "none of them to learn from" in str(error)
            continue
        sides = [{rows.plain(i)["series"] for i in range(len(rows))} for rows in (learned, held_out)]
        assert not sides[0] & sides[1] and sides[0] | sides[1] == {"LED LED", "diode DO"}


@pytest.mark.parametrize(
    ("folder", "one", "other"),
    [
        ("Resistor_THT", "R_Axial_DIN0204_L3.6mm_D1.6mm_P5.08mm_Horizontal", "R_Axial_DIN0309_L9.0mm_P1mm_Horizontal"),
        ("LED_THT", "LED_D5.0mm-3", "LED_D3.0mm_Clear"),
        ("Connector_JST", "JST_EH_B2B-EH-A_1x02_P2.50mm_Vertical", "JST_EH_B12B-EH-A_1x12_P2.50mm_Vertical"),
    ],
)
def test_sizes_pin_counts_and_colours_are_one_series(folder, one, other):
    assert series(folder, one) == series(folder, other)
    assert series(folder, one) != series(folder, one.replace("Horizontal", "Vertical") + "_SnapIn")
