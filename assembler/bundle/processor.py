"""Raw samples to arrays, the same for training and serving: PIL for pixels, numpy for numbers, no torch."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from assembler.bundle.cells import expression_array
from assembler.bundle.clouds import points_array
from assembler.bundle.manifest import (
    ExpressionProcessor,
    ImageProcessor,
    PointsProcessor,
    Processor,
    SoundProcessor,
    TextProcessor,
    VideoProcessor,
)
from assembler.errors import AssemblerError, told
from assembler.samples import Cell, Cloud, Sound

Arrays = tuple[np.ndarray, np.ndarray | None]
"""A sample's values and, where samples differ in length, the mask of its real positions."""

MODES = {1: "L", 3: "RGB"}
FITS: dict[str, Callable[..., Image.Image]] = {"stretch": Image.Image.resize, "crop": ImageOps.fit}


def open_image(path: Path | IO[bytes]) -> Image.Image:
    """The picture in a file, read to its end.

    Raises:
        AssemblerError: the file is not there, or no picture that can be opened.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise AssemblerError(f"{path} is not there; check the path") from error
    # Pillow's decoders raise any of these on damaged bytes.
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, Image.DecompressionBombError) as error:
        raise AssemblerError(f"{path} is no picture that can be opened ({error})") from error


def preprocess(image: Image.Image, processor: ImageProcessor) -> np.ndarray:
    """The picture as float32 [channels, H, W], as the processor says."""
    (height, width), channels = processor.size, processor.channels
    image = ImageOps.exif_transpose(image).convert(MODES[channels])
    if image.size != (width, height):
        resample = Image.Resampling[processor.interpolation.upper()]
        image = FITS[processor.fit](image, (width, height), resample)
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / np.float32(255)
    mean, std = np.asarray(processor.mean, np.float32), np.asarray(processor.std, np.float32)  # [channels] or [1]
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))  # [C, H, W]


def _image(sample: Any, processor: ImageProcessor, base: Path) -> Arrays:
    if not isinstance(sample, Image.Image):
        raise AssemblerError(f"wants a PIL image, got {type(sample).__name__}")
    if not processor.crops:
        return preprocess(sample, processor), None
    return _stacked([sample, *tiles(sample, processor)], processor, processor.crops + 1)


def _stacked(pictures: Sequence[Image.Image], processor: ImageProcessor, count: int) -> Arrays:
    """float32 [count, C, H, W], blank after the last picture, and the mask of the real ones."""
    values = np.zeros((count, processor.channels, *processor.size), np.float32)
    for index, picture in enumerate(pictures):
        values[index] = preprocess(picture, processor)
    return values, np.arange(count) < len(pictures)


def tiles(image: Image.Image, processor: ImageProcessor) -> list[Image.Image]:
    """The tiles of the picture's grid, row by row, each of the processor's size; none where the grid is 1 x 1."""
    (height, width), image = processor.size, ImageOps.exif_transpose(image)
    rows, columns = tile_grid(image.height / image.width * width / height, processor.crops)
    if rows * columns == 1:
        return []
    resample = Image.Resampling[processor.interpolation.upper()]
    whole = FITS[processor.fit](image.convert(MODES[processor.channels]), (columns * width, rows * height), resample)
    corners = [(column * width, row * height) for row in range(rows) for column in range(columns)]
    return [whole.crop((left, top, left + width, top + height)) for left, top in corners]


@cache
def tile_grid(shape: float, most: int) -> tuple[int, int]:
    """(rows, columns), at most `most` tiles, with rows / columns nearest to `shape`; the largest of equally near ones.

    >>> tile_grid(1.0, 4), tile_grid(0.3, 4), tile_grid(1.0, 3)
    ((2, 2), (1, 3), (1, 1))
    """
    grids = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
    return min(grids, key=lambda grid: (round(abs(math.log(grid[0] / grid[1] / shape)), 9), -grid[0] * grid[1]))


def _video(sample: Any, processor: VideoProcessor, base: Path) -> Arrays:
    """Frames float32 [frames, C, H, W] and the mask of the real ones."""
    pictures = not isinstance(sample, Image.Image | str) and isinstance(sample, Sequence)
    if not pictures or not all(isinstance(frame, Image.Image) for frame in sample):
        raise AssemblerError(f"wants a sequence of PIL images, got {type(sample).__name__}")
    if not sample:
        raise AssemblerError("wants at least one frame, got a video of none")
    count, wanted = len(sample), processor.frames
    if count >= wanted or processor.short == "repeat":
        at = [(2 * i + 1) * count // (2 * wanted) for i in range(wanted)]  # the middle of each of `wanted` equal parts
    else:
        at = list(range(count))
    return _stacked([sample[i] for i in at], processor.picture, wanted)


def _points(sample: Any, processor: PointsProcessor, base: Path) -> Arrays:
    if not isinstance(sample, Cloud):
        raise AssemblerError(f"wants a Cloud, got {type(sample).__name__}")
    return points_array(np.asarray(sample.points), processor)


def _sound(sample: Any, processor: SoundProcessor, base: Path) -> Arrays:
    """float32 [samples] at the processor's rate, silence after the sound, and a mask of where the sound is."""
    if not isinstance(sample, Sound):
        raise AssemblerError(f"wants a Sound, got {type(sample).__name__}")
    sound = resampled(sample.samples, sample.rate, processor.rate)[: processor.samples]
    values = np.zeros(processor.samples, np.float32)
    values[: len(sound)] = sound
    return values, np.arange(processor.samples) < len(sound)


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Sound [S] at `rate` -> at `wanted` samples a second, without aliasing (soxr's high quality)."""
    samples = np.asarray(samples, np.float32)
    if rate == wanted:
        return samples
    import soxr

    return soxr.resample(samples, rate, wanted)


def _text(sample: Any, processor: TextProcessor, base: Path) -> Arrays:
    """Token ids [length], cut or padded at the end, and the mask of the real ones."""
    if not isinstance(sample, str):
        raise AssemblerError(f"wants a text, got {type(sample).__name__}")
    tokenizer = open_tokenizer(str((base / processor.tokenizer).resolve()), processor.length)
    ids = tokenizer.encode(sample).ids[: processor.length]
    values = np.full(processor.length, processor.pad, np.int64)
    values[: len(ids)] = ids
    return values, np.arange(processor.length) < len(ids)


@cache
def open_tokenizer(path: str, length: int) -> Any:
    """The tokenizer in a file; a text is cut to `length` tokens, the last of them still the one that ends it.

    Raises:
        AssemblerError: the file is no tokenizer.
    """
    from tokenizers import Tokenizer

    with told(f"{path} is no tokenizer; bring the weights' tokenizer.json, or export again"):
        tokenizer = Tokenizer.from_file(path)
        tokenizer.no_padding()
        tokenizer.enable_truncation(length)
        return tokenizer


def _expression(sample: Any, processor: ExpressionProcessor, base: Path) -> Arrays:
    if not isinstance(sample, Cell):
        raise AssemblerError(f"wants a Cell, got {type(sample).__name__}")
    return expression_array(sample, processor, base), None


MAKERS: dict[str, Callable[[Any, Any, Path], Arrays]] = {
    "image": _image,
    "video": _video,
    "audio": _sound,
    "points": _points,
    "expression": _expression,
    "text": _text,
}
"""How a sample becomes arrays, by the kind of processor."""


def tensors(sample: Any, processor: Processor, masked: bool, base: Path) -> dict[str, np.ndarray]:
    """The arrays of one sample: values under "" and, where `masked`, the mask of real positions under "mask".

    Files that a processor names are relative to `base`.

    Raises:
        AssemblerError: the sample is not of the kind that the processor takes, or holds what it cannot use.
    """
    values, mask = MAKERS[processor.kind](sample, processor, base)
    return {"": values, "mask": np.ones(values.shape[:1], bool) if mask is None else mask} if masked else {"": values}
