"""Hostile pictures in a real run: each ends it with a sentence, or is left out, counted and named while it goes on."""

import json

import pytest
from PIL import Image

from assembler.errors import AssemblerError
from assembler.train import train
from tests.assembler.test_bad_rows import spec_in
from tests.components.test_manifests import EXAMPLE, png

HOSTILE = {
    2: ("truncated.png", "truncated.png is no picture that can be opened"),
    4: ("bomb.png", "bomb.png is no picture that can be opened"),
    6: ("../outside.png", "lies outside"),
    8: ("link.png", "lies outside"),
    9: ("none.png", "is not there"),
}


@pytest.fixture
def folder(tmp_path):
    """Twelve rows, five of them with a picture that must not or cannot be opened."""
    folder = tmp_path / "data"
    folder.mkdir()
    whole = (EXAMPLE / "0.png").read_bytes()
    (tmp_path / "outside.png").write_bytes(whole)
    (folder / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    lines = []
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(folder / f"{number}.png")
        name = HOSTILE[number][0] if number in HOSTILE else f"{number}.png"
        lines.append(json.dumps({"image": name, "word": f"word {number}"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder


def test_a_run_skips_counts_and_names_hostile_pictures_and_learns_from_the_others(folder, tmp_path, capsys):
    run = train(spec_in(folder, "skip"), tmp_path / "run")
    assert f"{len(HOSTILE)} rows cannot be read and are left out" in capsys.readouterr().out
    skipped = json.loads(run.skipped_path.read_text())
    assert list(skipped) == [str(number) for number in HOSTILE]
    for number, (_, sentence) in HOSTILE.items():
        assert f"rows.jsonl:{number + 1}: " in skipped[str(number)] and sentence in skipped[str(number)]
    assert len(run.metrics_path.read_text().splitlines()) == 12 and run.learned("tune").is_file()


@pytest.mark.parametrize("number", [2, 4, 6])
def test_without_it_a_hostile_picture_ends_the_run_with_its_file_and_row(number, folder, tmp_path):
    name, sentence = HOSTILE[number]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"image": name, "word": word}) + "\n" for word in "abcdef"))
    with pytest.raises(AssemblerError, match=rf"rows\.jsonl:\d: .*{sentence}"):
        train(spec_in(folder, "fail"), tmp_path / "run")
