"""The scanned digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from assembler.part import DatasetPart
from assembler.registry import register

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@register
class Digits(DatasetPart):
    """1,797 scanned handwritten digits, 8 x 8 grey pixels: `image`, its `word`, its `label` 0-9, and a `question`.

    Source: UCI "Optical recognition of handwritten digits" (E. Alpaydin, C. Kaynak, 1998; CC BY 4.0), the test set, as
    scikit-learn ships it; nothing is downloaded. Parameters: 0.
    """

    type = "dataset.digits"

    question: str = Field("Which digit is this?", max_length=1000, description="the text of the column `question`")

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        return [({"data": {"type": cls.type, "options": {"question": "Which?"}}}, None)]

    def fields(self, base: Path) -> dict[str, str]:
        return {"image": "image", "word": "text", "label": "label", "question": "text"}

    def rows(self, base: Path) -> Sequence[dict[str, Any]]:
        import numpy as np
        from PIL import Image
        from sklearn.datasets import load_digits

        data = load_digits()
        pixels = np.round(data.images * (255 / 16)).astype(np.uint8)  # [N, 8, 8], 0 is paper
        return [
            {"image": Image.fromarray(picture), "word": WORDS[digit], "label": int(digit), "question": self.question}
            for picture, digit in zip(pixels, data.target, strict=True)
        ]
