"""Model arithmetic: what instruction tuning changed in a model, added to another one of the same base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from assembler.errors import AssemblerError


def with_residual(adapted: Tensor, instruct: Tensor, base: Tensor, lam: float) -> Tensor:
    """adapted + lam (instruct - base), in float32 and back; `adapted` itself where lam is 0."""
    if lam == 0 or not adapted.is_floating_point():
        return adapted
    change = instruct.float() - base.float()
    return (adapted.float() + lam * change).to(adapted.dtype)


def merge_residual(adapted: Path, instruct: Path, base: Path, out: Path, lam: float = 1.0) -> None:
    """Write the safetensors file `out`: theta_adapted + lam (theta_instruct - theta_base) (arXiv 2509.11414).

    Raises:
        AssemblerError: a file cannot be read, or the three do not hold the same tensors; nothing is written.
    """
    merged: dict[str, Tensor] = {}
    try:
        with safe_open(adapted, "pt") as a, safe_open(instruct, "pt") as b, safe_open(base, "pt") as c:
            for key in a.keys():  # noqa: SIM118  # a file handle, no mapping
                three = [_tensor(handle, key, path) for path, handle in ((adapted, a), (instruct, b), (base, c))]
                _check_shapes(key, dict(zip((adapted, instruct, base), three, strict=True)))
                merged[key] = with_residual(three[0], three[1], three[2], lam)
    except (SafetensorError, OSError) as error:
        raise AssemblerError(f"cannot read the three models: {error}; give three whole safetensors files") from error
    partial = out.with_name(f".{out.name}.partial")
    save_file(merged, partial, metadata={"format": "pt"})
    partial.replace(out)


def _tensor(handle: object, key: str, path: Path) -> Tensor:
    if key not in handle.keys():  # type: ignore[attr-defined]  # noqa: SIM118
        raise AssemblerError(f"{path} has no {key}; the three models must be of one architecture")
    tensor: Tensor = handle.get_tensor(key)  # type: ignore[attr-defined]
    return tensor


def _check_shapes(key: str, found: Mapping[Path, Tensor]) -> None:
    sizes = {path: tuple(tensor.shape) for path, tensor in found.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{list(size)} in {path}" for path, size in sizes.items())
        raise AssemblerError(f"{key} is {told}; the three models must be of one architecture")
