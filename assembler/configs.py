"""The config of a model, in Hugging Face's names: read from where its weights lie, and asked for sizes."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from assembler.errors import AssemblerError


def read_config(path: Path) -> dict[str, Any]:
    """The config of a GGUF file or of a folder with config.json, read again when the file has changed.

    Raises:
        AssemblerError: there is none, or it cannot be read.
    """
    file = path if path.suffix == ".gguf" else path / "config.json"
    try:
        return _read(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, RecursionError) as error:
        raise AssemblerError(f"{file} cannot be read ({error}); a model's folder has a config.json") from error


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file that a model's folder may have; empty where there is none.

    Raises:
        AssemblerError: it cannot be read.
    """
    if not file.is_file():
        return {}
    try:
        return _read(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, RecursionError) as error:
        raise AssemblerError(f"{file} cannot be read ({error}); fetch it again") from error


@lru_cache(64)
def _read(file: Path, changed: int) -> dict[str, Any]:
    if file.suffix == ".gguf":
        from assembler import gguf

        return gguf.read_config(file)
    config = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError("it is no JSON object")
    return config


def size_in(config: dict[str, Any], *names: str) -> int | None:
    """The first of `names` that the config or its `text_config` has; None when neither has one.

    Raises:
        AssemblerError: it is no whole number from 1.
    """
    inner = config.get("text_config")
    if inner is not None and not isinstance(inner, dict):
        raise AssemblerError(f"the config's `text_config` is {inner!r:.40}; it is a mapping")
    for table in (config, inner or {}):
        for name in names:
            found = table.get(name)
            if found is not None and (not isinstance(found, int) or isinstance(found, bool) or found < 1):
                raise AssemblerError(f"the config's `{name}` is {found!r:.40}; it is a whole number from 1")
            if found is not None:
                return found
    return None


def check_heads(config: Any) -> None:
    """A config of transformers has as many heads of queries as of keys, or a multiple.

    Raises:
        ValueError: it has not.
    """
    heads, groups = (getattr(config, f"num_{kind}_heads", None) for kind in ("attention", "key_value"))
    if heads and groups and heads % groups:
        raise ValueError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {groups}; set both")
