"""The catalogue and the cases that the editor's own rules are held to."""

import json

from assembler.registry import parts
from assembler.values import AXES
from tests.ui.vectors import FILE, text
from ui.catalogue import catalogue


def test_every_part_is_in_the_palette_with_all_its_knobs() -> None:
    known = catalogue()["parts"]
    assert set(known) == set(parts())
    for name, cls in parts().items():
        keys = {field.alias or key for key, field in cls.model_fields.items()}
        assert {field["key"] for field in known[name]["fields"]} == keys
        assert known[name]["summary"] and known[name]["name"].isidentifier()
    json.dumps(catalogue(), allow_nan=False)


def test_kinds_are_kinds() -> None:
    for info in catalogue()["parts"].values():
        assert {*info["gives"], *(kind for kinds in info["ports"].values() for kind in kinds)} <= set(AXES)


def test_a_fresh_node_is_one_that_its_part_accepts() -> None:
    for name, cls in parts().items():
        info = catalogue()["parts"][name]
        if info["role"] == "node":
            cls.model_validate(info["start"])
        elif info["role"] == "adapter":
            cls.model_validate({"host": "talk", **info["start"]})


def test_the_vectors_are_what_python_decides() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run: python -m tests.ui.vectors"
