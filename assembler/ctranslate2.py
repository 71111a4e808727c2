"""Models in CTranslate2's layout (`model.bin`), read without CTranslate2 and without torch.

The file, all little-endian: version u32; name of the spec; revision u32; count u32 of variables, each its name, rank
u8, sizes u32, type u8, bytes u32 and the bytes themselves; from version 3 on, count u32 of aliases, each a name and the
name of the variable that it stands for. A name is u16 bytes of length and the bytes, a zero at the end among them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from assembler.errors import AssemblerError

if TYPE_CHECKING:
    import numpy as np

FILE = "model.bin"
TYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "<u2")
"""By the file's number of a type; the last is bfloat16, whose bits are the upper half of a float32's."""
BFLOAT16 = 5
VERSIONS = range(3, 7)
MAX_VARIABLES = 100_000


@dataclass(frozen=True)
class Variable:
    """Where a variable lies in the file, and as what."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class Index:
    """What a file holds: the name of its `spec`, such as WhisperSpec, its variables, and other names for them."""

    path: Path
    spec: str
    variables: dict[str, Variable]
    aliases: dict[str, str]

    def array(self, name: str) -> np.ndarray:
        """A variable as float32, its quantisation undone: integers divided by the scale (of each row) beside them.

        Raises:
            AssemblerError: there is none of this name.
        """
        values = self.raw(name)
        if values.dtype.kind != "i":
            return values
        scale = self.raw(f"{name}_scale")
        if scale.size not in (1, values.shape[0] if values.ndim else 1) or not scale.all():
            raise AssemblerError(f"{self.path}: {name}_scale does not fit {name}; the file is damaged, fetch it again")
        return values / scale.reshape(-1, *[1] * (values.ndim - 1)).astype("<f4")

    def raw(self, name: str) -> np.ndarray:
        """A variable as the file keeps it, floats as float32."""
        import numpy as np

        name = self.aliases.get(name, name)
        if name not in self.variables:
            raise AssemblerError(f"{self.path} has no {name}; give the model.bin of a whole model")
        found = self.variables[name]
        kind = np.dtype(TYPES[found.type])
        values = np.fromfile(self.path, kind, math.prod(found.shape), offset=found.offset).reshape(found.shape)
        if found.type == BFLOAT16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32) if kind.kind == "f" else values


def holds_model(folder: Path) -> bool:
    """Whether the folder has a model.bin that begins as CTranslate2's do; a torch archive of that name does not."""
    try:
        with (folder / FILE).open("rb") as file:
            return int.from_bytes(file.read(4), "little") in VERSIONS
    except OSError:
        return False


def read_index(folder: Path) -> Index:
    """What the model.bin in a folder holds; the variables themselves are read when they are asked for.

    Raises:
        AssemblerError: the file is damaged or none of this layout.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            return _Reader(file, path, os.fstat(file.fileno()).st_size).index()
    except OSError as error:
        raise AssemblerError(f"{path} cannot be read ({error})") from error


class _Reader:
    """The fields of the file, one after another, each checked against what is left of it."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.file, self.path, self.size = file, path, size

    def index(self) -> Index:
        version = self.number(4)
        if version not in VERSIONS:
            raise AssemblerError(f"{self.path}: format {version} of CTranslate2 is not read here; convert it anew")
        spec, _ = self.name(), self.number(4)
        variables = dict(self.variable() for _ in self.counted())
        aliases = {self.name(): self.name() for _ in self.counted()}
        return Index(self.path, spec, variables, aliases)

    def counted(self) -> Iterator[int]:
        count = self.number(4)
        if count > MAX_VARIABLES:
            raise self.damaged()
        return iter(range(count))

    def variable(self) -> tuple[str, Variable]:
        name, rank = self.name(), self.number(1)
        shape = tuple(self.number(4) for _ in range(rank))
        kind, length = self.number(1), self.number(4)
        offset = self.file.tell()
        if kind >= len(TYPES) or length != math.prod(shape) * int(TYPES[kind][-1]):
            raise self.damaged()
        if length > self.size - offset:
            raise self.damaged()
        self.file.seek(length, os.SEEK_CUR)
        return name, Variable(shape, kind, offset)

    def name(self) -> str:
        return self.bytes(self.number(2)).rstrip(b"\0").decode("utf-8", "replace")

    def number(self, width: int) -> int:
        return int.from_bytes(self.bytes(width), "little")

    def bytes(self, length: int) -> bytes:
        found = self.file.read(length)
        if len(found) != length:
            raise self.damaged()
        return found

    def damaged(self) -> AssemblerError:
        return AssemblerError(f"{self.path} is damaged or cut off at byte {self.file.tell():,}; fetch it again")
