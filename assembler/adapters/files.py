"""Adapters in files: a folder of `adapter_config.json` and `adapter_model.safetensors`, PEFT's layout.

A method that PEFT has is written in PEFT's names, so that either loads the other's file. Any other has its own names in
the same layout. Reading runs nothing: JSON and safetensors only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from assembler.adapters.book import Book, adapters_of, book_of
from assembler.adapters.host import Host
from assembler.anatomy import joined
from assembler.errors import AssemblerError, told
from assembler.files import aside, write_text
from assembler.part import AdapterPart
from assembler.registry import parts
from assembler.suggest import nearest
from assembler.weights import load_state

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
MOST_BYTES = 1_000_000
"""Of a config."""


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as it lies in a folder.

    Attributes:
        config: adapter_config.json.
        tensors: the tensors by the names they have in the file.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> type[AdapterPart]:
        """The part that made it, or that takes PEFT's method.

        Raises:
            AssemblerError: no installed part does.
        """
        known = {name: cls for name, cls in parts().items() if issubclass(cls, AdapterPart)}
        if self.own:
            name = str(self.config["part"])
            if name not in known:
                raise AssemblerError(f"{self.folder / CONFIG}: there is no adapter {name[:80]!r}{nearest(name, known)}")
            return known[name]
        method = self.config.get("peft_type")
        takers = [cls for cls in known.values() if cls.peft_type and cls.peft_type == method]
        if not takers:
            have = ", ".join(sorted({cls.peft_type for cls in known.values() if cls.peft_type}))
            raise AssemblerError(f"{self.folder / CONFIG}: no part takes PEFT's {method!r}; there are {have}")
        return takers[0]

    @property
    def own(self) -> bool:
        """Whether it is in our names, not in PEFT's."""
        return "part" in self.config

    def part(self, on: Host) -> AdapterPart:
        """The part with the file's options, for a host.

        Raises:
            AssemblerError: the options are not the part's, or need what it does not do.
        """
        place = self.folder / CONFIG
        options = (
            self.config.get("options") if self.own else self.kind.peft_options(self.config, list(self.tensors), on)
        )
        if not isinstance(options, dict):
            raise AssemblerError(f"{place}: `options` is no mapping; the file is damaged")
        try:
            return self.kind.model_validate({**options, "host": "host"})
        except ValidationError as error:
            first = error.errors()[0]
            raise AssemblerError(f"{place}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def read_adapter(folder: Path) -> AdapterFile:
    """An adapter's folder.

    Raises:
        AssemblerError: a file is missing, too large, or not what its name says.
    """
    place, tensors = folder / CONFIG, folder / TENSORS
    if not place.is_file():
        raise AssemblerError(f"{folder} holds no adapter: it has no {CONFIG}")
    if place.stat().st_size > MOST_BYTES:
        raise AssemblerError(f"{place} has more than {MOST_BYTES:,} bytes; it is no adapter's config")
    with told(f"{place} is no JSON"):
        config = json.loads(place.read_text(encoding="utf-8"))
    if not isinstance(config, dict) or not {"part", "peft_type"} & set(config):
        raise AssemblerError(f"{place} is no adapter's config: it has neither `peft_type` nor `part`")
    if not tensors.is_file():
        raise AssemblerError(f"{folder} has no {TENSORS}; save the adapter as safetensors")
    return AdapterFile(folder, config, load_state(tensors))


def tensors_of(book: Book, name: str) -> dict[str, Tensor]:
    """The parameters and buffers of an adapter by name, each once."""
    module = book.modules[name]
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def save_adapter(host: nn.Module, name: str, folder: Path) -> None:
    """Write an adapter of a host into a new folder, aside first.

    Raises:
        AssemblerError: the host has no such adapter, or the folder exists.
    """
    from safetensors.torch import save_file

    book = adapters_of(host)
    if book is None:
        raise AssemblerError(f"the host has no adapter {name!r}; it has none")
    part, inserts, own = book.part(name), book.inserts(name), tensors_of(book, name)
    if folder.exists():
        raise AssemblerError(f"{folder} exists already; choose another folder or remove it")
    options = part.model_dump(mode="json", exclude={"host", "weights"})
    about = {"class": type(book.root).__name__, "anatomy": Host(book.root, name).anatomy.name}
    config: dict[str, Any] = {"assembler": 1, "part": part.type, "options": options, "host": about}
    tensors: Mapping[str, Tensor] = own
    if (theirs := part.peft_config(inserts)) is not None:
        config, tensors = theirs, part.to_peft(inserts, own)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with told(f"{folder} could not be written"), aside(folder) as draft:
        draft.mkdir()
        write_text(draft / CONFIG, json.dumps(config, indent=2) + "\n")
        plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
        save_file(plain, draft / TENSORS, metadata={"format": "pt"})


def load_adapter(host: nn.Module, folder: Path, name: str) -> list[str]:
    """Put an adapter from a folder on a host and return the names of its parameters.

    Raises:
        AssemblerError: the file is damaged or of another host; nothing has changed then.
    """
    file = read_adapter(folder)
    book, _ = book_of(host)
    part = file.part(Host(book.root, name))
    try:
        new = part.attach(host, name, seed=0)
    except AssemblerError as error:
        raise AssemblerError(f"{folder}: it does not fit this host: {error}") from error
    try:
        fill(host, name, file)
    except AssemblerError:
        there = adapters_of(host)
        assert there is not None
        there.remove(name)
        raise
    return new


@torch.no_grad()
def fill(host: nn.Module, name: str, file: AdapterFile) -> None:
    """Copy a file's tensors into an adapter that is on a host.

    Raises:
        AssemblerError: a tensor is missing, left over, or of another shape; nothing is copied then.
    """
    book = adapters_of(host)
    assert book is not None
    part, inserts, own = book.part(name), book.inserts(name), tensors_of(book, name)
    if file.kind is not type(part):
        raise AssemblerError(f"{file.folder} is of {file.kind.type}, and {name} is {part.type}")
    given = file.tensors if file.own else part.from_peft(inserts, file.tensors)
    place = file.folder / TENSORS
    made_for = (file.config.get("host") or {}).get("class", "another host") if file.own else "another host"
    for key, tensor in own.items():
        if key not in given:
            raise AssemblerError(f"{place}: {key} is missing; the file was made for {made_for}, or is cut short")
        if given[key].shape != tensor.shape:
            shapes = f"{list(given[key].shape)}, and this host takes {list(tensor.shape)}"
            raise AssemblerError(f"{place}: {key} is {shapes}; the file was made for {made_for}")
        if given[key].is_floating_point() and not given[key].isfinite().all():
            raise AssemblerError(f"{place}: {key} holds values that are no numbers; the file is damaged")
        if given[key].is_floating_point() != tensor.is_floating_point():
            raise AssemblerError(f"{place}: {key} is {given[key].dtype}, not {tensor.dtype}; the file is damaged")
    _check_places(book.modules[name], given, place)
    extra = sorted(set(given) - set(own))
    if extra:
        raise AssemblerError(f"{place}: {extra[0]} belongs to nothing here; the file was made for {made_for}")
    for key, tensor in own.items():
        if not tensor.is_meta:
            tensor.copy_(given[key])


def _check_places(adapter: nn.Module, given: Mapping[str, Tensor], place: Path) -> None:
    """Numbers of rows or entries lie in what they number; a module says by `limits` how many there are."""
    for path, module in adapter.named_modules():
        for name, limit in getattr(module, "limits", {}).items():
            numbers = given[joined(path, name)]
            if numbers.numel() and not (numbers.min() >= 0 and numbers.max() < limit):
                raise AssemblerError(f"{place}: {path}.{name} points outside of a weight; the file is damaged")


def site_of(on: Host, path: str) -> str:
    """The canonical site of a module path as PEFT writes it: from the model's root, which may hold our host.

    Raises:
        AssemblerError: it is no site.
    """
    whole = {place.path: site for site, place in on.places.items() if place.whole}
    for own in sorted(whole, key=len, reverse=True):
        if path == own or path.endswith(f".{own}"):
            return whole[own]
    raise AssemblerError(f"the adapter changes {path}, which is no site of {type(on.root).__name__}")


def pattern_of(sites: list[str]) -> dict[str, Any]:
    """The fields `sites` and `layers` that name these sites and no others.

    Raises:
        AssemblerError: the layers differ from site to site.
    """
    rows: dict[str, set[int]] = {}
    for site in sites:
        stack, _, rest = site.partition("layers.")
        index, _, leaf = rest.partition(".")
        if index.isdigit():
            rows.setdefault(f"{stack}layers.*.{leaf}", set()).add(int(index))
        else:
            rows.setdefault(site, set())
    layers = {frozenset(found) for found in rows.values() if found}
    if len(layers) > 1:
        raise AssemblerError("the adapter changes other layers at one site than at another; load it as several")
    pattern = next(iter(rows)) if len(rows) == 1 else "{" + ",".join(rows) + "}"
    return {"sites": pattern, "layers": sorted(next(iter(layers)))} if layers else {"sites": pattern}
