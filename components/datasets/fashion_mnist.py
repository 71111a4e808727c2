"""Fashion-MNIST, as Debian packs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from assembler.debian import Package
from assembler.errors import AssemblerError
from assembler.registry import register
from assembler.rows import Row, Rows, digest
from components.datasets._recipe import Recipe, limited

WORDS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
PACKAGE = Package(
    "dataset-fashion-mnist",
    "0.0~git20200523.55506a9-1",
    "pool/main/d/dataset-fashion-mnist/dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
    "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
)
SIDE = 28


@register
class FashionMnist(Recipe):
    """70,000 pictures of clothes, 28 x 28 grey pixels: `image`, its `word`, its `label` 0-9, and a `question`.

    Source: Zalando Research (arXiv 1708.07747), both parts together, through the Debian package dataset-fashion-mnist;
    MIT licence. A sample is known by the hash of its pixels. Parameters: 0.
    """

    type = "dataset.fashion_mnist"
    source = "Debian package dataset-fashion-mnist 0.0~git20200523.55506a9-1"
    licence = "MIT, (c) 2017 Zalando SE"
    digest = "7304def1f294c07d9bc320e5dc177ca7575caaff48138d5701cb064ebdf0b2b6"
    kinds = {"image": "image", "word": "text", "label": "label", "question": "text"}

    question: str = Field("What is this?", max_length=1000, description="the text of the column `question`")

    def prepare(self, folder: Path, say: Callable[[str], None]) -> list[Row]:
        import gzip

        say("dataset-fashion-mnist")
        PACKAGE.fetch()
        rows = []
        for path, content in PACKAGE.members():
            name = path.rpartition("/")[2]
            if name.endswith("ubyte.gz"):
                raw = gzip.decompress(content.read())
                (folder / name.removesuffix(".gz")).write_bytes(raw)
                rows.append({"file": name.removesuffix(".gz"), "sha256": digest(raw)})
        return sorted(rows, key=lambda row: row["file"])

    def rows(self, base: Path) -> Rows:
        import numpy as np

        files = {row["file"]: row["sha256"] for row in self.manifest()}
        arrays = {}
        for file, wanted in files.items():
            raw = (self.folder / file).read_bytes()
            if digest(raw) != wanted:
                raise AssemblerError(f"{self.folder / file} has changed; remove {self.folder} and fetch it again")
            arrays[file] = np.frombuffer(raw, np.uint8)
        parts = ("train", "t10k")
        pixels = np.concatenate([arrays[f"{x}-images-idx3-ubyte"][16:].reshape(-1, SIDE, SIDE) for x in parts])
        labels = np.concatenate([arrays[f"{x}-labels-idx1-ubyte"][8:] for x in parts])
        return limited(Pictures(pixels, labels, self.question), self.limit)


class Pictures(Rows):
    """Rows of an array of pixels [N, 28, 28] and one of labels [N]."""

    def __init__(self, pixels: Any, labels: Any, question: str) -> None:
        self.pixels, self.labels, self.question = pixels, labels, question

    def __len__(self) -> int:
        return len(self.pixels)

    def plain(self, index: int) -> Row:
        label = int(self.labels[index])
        return {"word": WORDS[label], "label": label, "question": self.question}

    def row(self, index: int) -> Row:
        from PIL import Image

        return {"image": Image.fromarray(self.pixels[index]), **self.plain(index)}

    def key(self, index: int) -> str:
        return digest(self.pixels[index].tobytes())

    def place(self, index: int) -> str:
        return f"dataset.fashion_mnist row {index}"
