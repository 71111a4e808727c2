"""The matrices of a GGUF file as the integers they are kept in, where a block of 32 is q * scale + offset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from assembler.bundle.linears import BLOCK, Blocks
from assembler.gguf import Header, TensorInfo, array, reading, row_order, targets

Raw = np.ndarray


def _half(raw: Raw, at: int) -> np.ndarray:
    """The float16 at a byte of every block, as float32 [out, blocks]."""
    return raw[..., at : at + 2].copy().view(np.float16)[..., 0].astype(np.float32)


def _nibbles(raw: Raw, at: int) -> np.ndarray:
    """The 32 integers of 4 bits from a byte of every block on: the low halves first, then the high ones."""
    pairs = raw[..., at : at + 16]
    return np.concatenate([pairs & 15, pairs >> 4], axis=-1)


def _q4_0(raw: Raw) -> Blocks:
    scale = _half(raw, 0)
    return Blocks(4, _nibbles(raw, 2), scale, -8 * scale)


def _q4_1(raw: Raw) -> Blocks:
    return Blocks(4, _nibbles(raw, 4), _half(raw, 0), _half(raw, 2))


def _q8_0(raw: Raw) -> Blocks:
    scale = _half(raw, 0)
    return Blocks(8, (raw[..., 2:].view(np.int8).astype(np.int16) + 128).astype(np.uint8), scale, -128 * scale)


KINDS: dict[int, tuple[int, Callable[[Raw], Blocks]]] = {2: (18, _q4_0), 3: (20, _q4_1), 8: (34, _q8_0)}
"""ggml's number of a kind -> bytes of a block of 32 and its reader. Other kinds are dequantised like the rest."""


class GgufWeights(Mapping[str, np.ndarray]):
    """Every tensor of a file as float32 under Hugging Face's names, each dequantised when it is asked for."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self._places = {target: (source, part) for source, part, target in targets(header)}

    def __getitem__(self, name: str) -> np.ndarray:
        return array(self.header, *self._places[name]).astype(np.float32, copy=False)

    def __contains__(self, name: object) -> bool:
        return name in self._places  # without dequantising it

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def load_blocks(path: Path) -> dict[str, Blocks]:
    """Every matrix of the file that is kept in such blocks, under Hugging Face's names.

    Raises:
        AssemblerError: the file is no GGUF that is read, or ends too soon.
    """
    return blocks_of(Header(path))


def blocks_of(header: Header) -> dict[str, Blocks]:
    """The blocks of an opened file; see `load_blocks`."""
    found = {}
    for source, part, target in targets(header):
        info = header.tensors[source]
        if info.kind in KINDS and len(info.shape) == 2:
            with reading(f"{header.path}: the tensor '{source}'"):
                found[target] = _blocks(header, info, row_order(header, part, info.shape[0]))
    return found


def _blocks(header: Header, info: TensorInfo, order: np.ndarray | None) -> Blocks:
    size, read = KINDS[info.kind]
    blocks = math.prod(info.shape) // BLOCK
    raw = np.frombuffer(header.data, np.uint8, blocks * size, info.offset).reshape(info.shape[0], -1, size)
    return read(raw if order is None else raw[order])
