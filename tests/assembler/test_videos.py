"""Videos and crops: which frames are taken, which are real, and a sentence for what is no video."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from assembler.bundle.manifest import ImageProcessor, VideoProcessor
from assembler.bundle.processor import preprocess, tensors, tile_grid, tiles
from assembler.errors import AssemblerError
from assembler.readers import open_video

SMALL = ImageProcessor(size=(4, 6), interpolation="nearest")


def grey(level: int, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new("RGB", size, (level, level, level))


def levels(values: np.ndarray) -> list[int]:
    return [round(float(frame.mean()) * 255) for frame in values]


@given(count=st.integers(1, 40), wanted=st.integers(1, 12), short=st.sampled_from(["mask", "repeat"]))
def test_frames_are_taken_in_order_at_even_distances(count, wanted, short):
    processor = VideoProcessor(frames=wanted, short=short, picture=SMALL)
    made = tensors([grey(level) for level in range(count)], processor, True, None)
    taken = levels(made[""][made["mask"]])
    assert made[""].shape == (wanted, 3, 4, 6) and not made[""][~made["mask"]].any()
    assert len(taken) == (wanted if short == "repeat" else min(count, wanted)) and taken == sorted(taken)
    if count >= wanted:
        assert len(set(taken)) == wanted and taken[0] == count // (2 * wanted)
    elif short == "mask":
        assert taken == list(range(count))
    else:
        assert set(taken) == set(range(count))


@pytest.mark.parametrize("kind", ["gif", "webp", "folder"])
def test_a_video_is_read_in_the_order_of_its_frames(kind, tmp_path):
    frames = [grey(20 * index, (8, 8)) for index in range(12)]
    path = tmp_path / f"film.{kind}"
    if kind == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("no frame")
        for index, frame in enumerate(frames):
            frame.save(path / f"{index}.png")
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    film = open_video(path)
    assert [np.asarray(frame.convert("L")).mean() for frame in film] == [20 * index for index in range(12)]


def test_what_is_no_video_is_a_sentence_with_its_name(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_bytes(b"no picture")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0 ftyp")
    (tmp_path / "film.gif").write_bytes(b"GIF89a")
    for name, sentence in {
        "empty": "holds no frames",
        "bad": r"bad.1\.png is no picture",
        "film.mp4": "films are not decoded here",
        "film.gif": "is no animated picture",
        "none": "is not there",
    }.items():
        with pytest.raises(AssemblerError, match=f"{name}.*{sentence}|{sentence}"):
            open_video(tmp_path / name)


@pytest.mark.parametrize(("sample", "sentence"), [([], "at least one frame"), (grey(1), "sequence"), ("a", "sequence")])
def test_a_sample_that_is_no_video_is_refused(sample, sentence):
    with pytest.raises(AssemblerError, match=sentence):
        tensors(sample, VideoProcessor(frames=2, picture=SMALL), True, None)


@given(rows=st.integers(1, 5), columns=st.integers(1, 5), spare=st.integers(0, 3))
def test_a_picture_of_the_shape_of_a_grid_is_cut_along_it(rows, columns, spare):
    grid = tile_grid(rows / columns, rows * columns + spare)
    assert grid[0] * columns == grid[1] * rows and rows <= grid[0] and grid[0] * grid[1] <= rows * columns + spare


def test_crops_are_the_whole_picture_and_then_its_tiles_row_by_row():
    picture = Image.fromarray(np.arange(8 * 12, dtype=np.uint8).reshape(8, 12)).convert("RGB")
    processor = SMALL.model_copy(update={"crops": 4})
    made = tensors(picture, processor, True, None)
    assert made[""].shape == (5, 3, 4, 6) and made["mask"].tolist() == [True] * 5
    assert (made[""][0] == preprocess(picture, SMALL)).all()
    joined = np.concatenate([np.concatenate(made[""][[1, 2]], -1), np.concatenate(made[""][[3, 4]], -1)], -2)
    assert (joined == np.asarray(picture, np.float32).transpose(2, 0, 1) / np.float32(255)).all()


def test_a_picture_of_another_shape_has_fewer_real_crops():
    processor = SMALL.model_copy(update={"crops": 5})
    assert tensors(grey(9, (60, 12)), processor, True, None)["mask"].tolist() == [True] * 4 + [False] * 2
    assert tiles(grey(9, (6, 4)), SMALL.model_copy(update={"crops": 1})) == []
