"""LoRAs that stay beside a decoder's weights, so that one decoder in memory answers as several models.

Their matrices are inputs of the decoder's graph that are empty unless they are given. Each LoRA is a file of
onnxruntime's adapter format, which any program gives a session by `RunOptions.add_active_adapter`; with bound inputs,
as here, its matrices are bound like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from assembler.bundle.architecture import Architecture, canonical_path
from assembler.errors import AssemblerError

SUFFIX = ".onnx_adapter"
Factors = dict[str, tuple[np.ndarray, np.ndarray]]
"""A linear's canonical path -> A [in, r] and B [r, out], the scale within B: y + x A B."""


def input_names(path: str) -> tuple[str, str]:
    """What the two matrices beside a linear are called in the graph."""
    return f"{path}.lora_A", f"{path}.lora_B"


def factors_of(name: str, inserts: Mapping[str, Any], shape: Architecture) -> Factors:
    """The matrices of the adapter `name`, from what it has put into an LM.

    Raises:
        AssemblerError: it is more than a low-rank change of linears.
    """
    found: Factors = {}
    for insert in inserts.values():
        made = insert.module.factors() if insert.kind == "add" and hasattr(insert.module, "factors") else None
        path = canonical_path(shape, insert.point.path, insert.point.index)
        if made is None or path is None or insert.point.side != "out":
            raise AssemblerError(
                f"{name} cannot be switched: at {insert.at or insert.point.path} it is no plain LoRA on a linear; "
                "leave it out of --switch, and it is worked into the weights"
            )
        found[path] = tuple(np.ascontiguousarray(x.detach().float().numpy().T) for x in made)  # type: ignore[assignment]
    return found


def write_adapter(path: Path, factors: Factors, real: Any) -> None:
    """Write a LoRA in onnxruntime's format, its numbers of the type `real`."""
    values = {}
    for linear, matrices in factors.items():
        for key, matrix in zip(input_names(linear), matrices, strict=True):
            values[key] = onnxruntime.OrtValue.ortvalue_from_numpy(matrix.astype(real))
    made = onnxruntime.AdapterFormat()
    made.set_adapter_version(1)
    made.set_model_version(1)
    made.set_parameters(values)
    made.export_adapter(str(path))


def read_adapter(path: Path) -> dict[str, onnxruntime.OrtValue]:
    """The matrices of a file, by the names of the graph's inputs."""
    return onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
