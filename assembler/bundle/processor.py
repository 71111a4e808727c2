"""Images to arrays, the same for training and serving: PIL for the pixels, numpy for the numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from assembler.bundle.manifest import ImageProcessor
from assembler.errors import AssemblerError

MODES = {1: "L", 3: "RGB"}
FITS: dict[str, Callable[..., Image.Image]] = {"stretch": Image.Image.resize, "crop": ImageOps.fit}


def open_image(path: Path) -> Image.Image:
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
