"""Adapters around another adapter: what they do, they do to its matrices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from assembler.part import AdapterPart

if TYPE_CHECKING:
    from torch import nn

    from assembler.adapters.host import Host


class WrappingPart(AdapterPart):
    """The adapter `adapter` with its matrices seen through something: a subclass writes `over`.

    `layers` and `every` are those of the part around.
    """

    adapter: dict[str, Any] = Field(description="`type` and options of the adapter inside")

    @field_validator("adapter")
    @classmethod
    def _fits(cls, adapter: dict[str, Any]) -> dict[str, Any]:
        made(adapter, {"host": "host"})
        return adapter

    @property
    def inner(self) -> AdapterPart:
        """The part inside."""
        return made(self.adapter, {"host": self.host, "layers": self.layers, "every": self.every})

    @abstractmethod
    def over(self, on: Host) -> None:
        """Change the matrices of what the adapter inside has put on the host, `matrices(on)`."""

    def inject(self, on: Host) -> None:
        self.inner.inject(on)
        self.over(on)

    def merge(self, host: nn.Module, name: str) -> None:
        from assembler.adapters.book import adapters_of

        book = adapters_of(host)
        if self.inner.mergeable and book is not None and name in book.names:
            book.merge(name)


def made(adapter: dict[str, Any], more: dict[str, Any]) -> AdapterPart:
    """The part that `type` and options describe.

    Raises:
        ValueError: there is no such adapter, or it does more than to change values at points.
    """
    from assembler.registry import parts
    from assembler.suggest import nearest

    known = {
        name: cls
        for name, cls in parts().items()
        if issubclass(cls, AdapterPart) and cls.trait == "delta" and not issubclass(cls, WrappingPart)
    }
    name = str(adapter.get("type"))
    if name not in known:
        raise ValueError(f"adapter: no adapter {name[:80]!r} can stand inside{nearest(name, known)}")
    return known[name].model_validate({**{key: item for key, item in adapter.items() if key != "type"}, **more})


def matrices(on: Host) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """(the adapter's module, the module inside of it that holds the matrix, the matrix's name) of every matrix."""
    for module in [*on.shared.values(), *(insert.module for insert in on.inserts.values())]:
        for owner in list(module.modules()):
            for name, parameter in list(owner.named_parameters(recurse=False)):
                if parameter.dim() > 1:
                    yield module, owner, name
