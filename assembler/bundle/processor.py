"""Images to arrays, the same for training and serving: PIL for the pixels, numpy for the numbers."""

from typing import Any

import numpy as np
from PIL import Image, ImageOps

from assembler.errors import AssemblerError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
MODES = {1: "L", 3: "RGB"}


def preprocess(image: Image.Image, processor: dict[str, Any]) -> np.ndarray:
    """(pixels / 255 - mean) / std as float32 [channels, H, W], resized to `size` = [H, W].

    `fit` is "stretch" (default: both sides resized) or "crop" (the shorter relation decides, the middle is kept).
    Raises AssemblerError for an interpolation, fit or channel count that does not exist.
    """
    resample = _pick(INTERPOLATIONS, processor.get("interpolation", "bicubic"), "interpolation")
    channels = processor.get("channels", 3)
    mode = _pick(MODES, channels, "channels")
    fit = _pick({"stretch": Image.Image.resize, "crop": ImageOps.fit}, processor.get("fit", "stretch"), "fit")
    height, width = processor["size"]
    image = ImageOps.exif_transpose(image).convert(mode)
    if image.size != (width, height):
        image = fit(image, (width, height), resample)
    pixels = np.asarray(image, dtype=np.float32).reshape(height, width, channels) / np.float32(255)
    mean = np.asarray(processor.get("mean", [0.0]), dtype=np.float32)  # [channels] or [1]
    std = np.asarray(processor.get("std", [1.0]), dtype=np.float32)
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))  # [C, H, W]


def _pick(table: dict, key: object, what: str) -> Any:
    if key not in table:
        raise AssemblerError(f"processor: {what} is {key!r}; choose one of {', '.join(map(str, table))}.")
    return table[key]
