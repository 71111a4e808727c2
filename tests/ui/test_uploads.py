"""What is uploaded goes through the guarded readers: cut off, or far larger inside than outside, it is a sentence."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from PIL import Image

from assembler.errors import AssemblerError
from tests.ui.senses import write_cells
from ui import cells, pickers

MOST = 300 << 20
"""Bytes that refusing a file may take."""


def picture(form: str, frames: int = 1) -> bytes:
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(frames)]
    file = io.BytesIO()
    images[0].save(file, form, **({"save_all": True, "append_images": images[1:]} if frames > 1 else {}))
    return file.getvalue()


def sound() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000, format="WAV")
    return file.getvalue()


def cloud() -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(0).normal(size=(500, 3)))
    return file.getvalue()


def ply(points: int, given: int) -> bytes:
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {points}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    return f"{head}end_header\n".encode() + np.random.default_rng(0).normal(size=(given, 3)).astype("<f4").tobytes()


WHOLE = {
    "a.png": ("image", picture("PNG")), "a.jpg": ("image", picture("JPEG")), "a.gif": ("video", picture("GIF", 5)),
    "a.wav": ("audio", sound()), "a.npy": ("points", cloud()), "a.ply": ("points", ply(500, 500)),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_is_read_whole_and_refused_cut_off(name: str) -> None:
    kind, content = WHOLE[name]
    assert pickers.read_upload(kind, name, content) is not None
    with pytest.raises(AssemblerError, match=rf"^{name} "):
        pickers.read_upload(kind, name, content[: len(content) // 2])


def test_cells_are_read_whole_and_refused_cut_off(tmp_path: Path) -> None:
    write_cells(tmp_path / "a.h5ad", np.random.default_rng(0).poisson(5, (200, 4)))
    content = (tmp_path / "a.h5ad").read_bytes()
    assert len(cells.opened("a.h5ad", content)) == 200
    with pytest.raises(AssemblerError, match=r"^a\.h5ad "):
        cells.opened("a.h5ad", content[: len(content) // 2])


def png_of(width: int, height: int) -> bytes:
    """A picture that says how large it is and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def wav_of(samples: int) -> bytes:
    size = 2 * samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    return b"RIFF" + struct.pack("<I", size + 36) + b"WAVE" + form + b"data" + struct.pack("<I", size) + bytes(1000)


def npy_of(*shape: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(1000)


BOMBS = {
    "a.png": ("image", png_of(60_000, 60_000)), "b.gif": ("video", png_of(60_000, 60_000)),
    "a.wav": ("audio", wav_of(2**28)), "a.npy": ("points", npy_of(10**10, 3)), "b.npy": ("points", npy_of(3, 10**10)),
    "a.ply": ("points", ply(10**10, 10)),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_be_huge_is_refused_before_it_is(name: str) -> None:
    kind, content = BOMBS[name]
    tracemalloc.start()
    with pytest.raises(AssemblerError, match=rf"^{name} "):
        pickers.read_upload(kind, name, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST


def test_cells_that_would_be_huge_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    write_cells(path, np.zeros((2, 4)))
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", (10**6, 10**7), np.float32, chunks=(1, 10**6), compression="gzip")
    with pytest.raises(AssemblerError, match=r"^a\.h5ad"):
        file = cells.opened("a.h5ad", path.read_bytes())
        file.cell(0)
