"""A GGUF file as a bundle that answers text, written from its own blocks without torch: `assembler ask model.gguf`."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from assembler.bundle.architecture import architecture_of
from assembler.bundle.decoder import LONGEST, DecoderWriter
from assembler.bundle.manifest import Manifest, write_manifest
from assembler.errors import AssemblerError
from assembler.files import file_hash
from assembler.gguf import Header, config_of
from assembler.gguf_blocks import GgufWeights, blocks_of
from assembler.gguf_tokenizer import read_words
from assembler.template import prepare

NEW_TOKENS = 256


def write_gguf_bundle(path: Path, folder: Path) -> None:
    """Write the bundle of the file at `path` into the folder, which is there and empty.

    Matrices in blocks of 4 or 8 bits are taken as they are; where the file has others, all go to blocks of 8 bits.

    Raises:
        AssemblerError: the file is no GGUF that is read, or its decoder is none that is written directly.
    """
    header = Header(path)
    config = config_of(header)
    shape = architecture_of(SimpleNamespace(hidden_act="silu", **config))
    if isinstance(shape, str):
        raise AssemblerError(f"{path}: no decoder is written for it: {shape}; name it in a spec and export that")
    weights, carried = GgufWeights(header), blocks_of(header)
    matrices = [name for name in weights if name.endswith("_proj.weight")]
    precision = "int4" if all(name in carried for name in matrices) else "int8"
    rotary = dict.fromkeys(shape.kinds, rotary_table(config, shape.head_size))
    writer = DecoderWriter(shape, weights, rotary, precision, carried)
    prompts = writer.write(folder)
    tokenizer = read_words(header)
    try:
        prompt = prepare("{question} {answer}", set(), tokenizer, None, None)
    except ValueError as error:
        raise AssemblerError(f"{path}: {error}, in a spec that names the file") from error
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    manifest = Manifest(
        name=path.stem,
        precision=precision,
        slots={},
        prompt=list(prompt.parts),
        bos=prompt.bos,
        stop=list(prompt.stop),
        max_new_tokens=NEW_TOKENS,
        vocab_size=shape.vocabulary,
        prompts=prompts,
        cache="in_place",
        positions=min(shape.positions, LONGEST),
        origin=f"written from {path.name}: {writer.note}",
        files={file.name: file_hash(file) for file in sorted(folder.iterdir())},
    )
    write_manifest(folder, manifest)


def rotary_table(config: dict[str, Any], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines [positions, size / 2] of places times theta^(-2i / size), scaled as the config says."""
    frequencies = config["rope_theta"] ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    scaling = config.get("rope_scaling") or {"rope_type": "default"}
    if scaling["rope_type"] == "linear":
        frequencies = frequencies / scaling["factor"]
    elif scaling["rope_type"] == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)  # 1: as it is, 0: divided by the factor
        frequencies = frequencies * (kept + (1 - kept) / scaling["factor"])
    places = np.arange(min(config["max_position_embeddings"], LONGEST), dtype=np.float64)
    angles = np.outer(places, frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
