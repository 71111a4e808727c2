"""What of an adapter does not learn but is found before: masks, bases, null spaces. `assembler adapters prepare`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from assembler.adapters.book import Book, adapters_of
from assembler.adapters.files import save_adapter
from assembler.adapters.host import Host
from assembler.adapters.tap import Insert
from assembler.errors import AssemblerError
from assembler.spec import Document, Spec
from assembler.suggest import nearest


@dataclass
class Trial:
    """What an adapter is prepared on.

    Attributes:
        host: the module that holds the adapter, untrained.
        name: the adapter's.
        base: the folder that paths in the spec start from.
        rows: gives a dict of tensors for each row, as `model` takes them; a single row has no padding.
        model: the whole model, which answers with its loss.
    """

    host: nn.Module
    name: str
    base: Path
    rows: Callable[[], Iterable[dict[str, Tensor]]]
    model: nn.Module

    @property
    def book(self) -> Book:
        """The adapters on the host."""
        book = adapters_of(self.host)
        assert book is not None
        return book

    @property
    def inserts(self) -> dict[str, Insert]:
        """What the adapter has put in."""
        return self.book.inserts(self.name)

    @property
    def on(self) -> Host:
        """The host as an adapter sees it."""
        return Host(self.book.root, self.name)

    def losses(self) -> Iterator[Tensor]:
        """The loss of one row after another.

        Raises:
            AssemblerError: there are no rows, or no loss.
        """
        number = 0
        for row in self.rows():
            found = self.model(**row)
            if "loss" not in found:
                raise AssemblerError("no node gives a loss to prepare on; add a backbone or a head")
            yield found["loss"]
            number += 1
        if not number:
            raise AssemblerError("there are no rows to prepare on")

    def backward(self) -> None:
        """Add the gradients of the mean loss to every parameter that requires them."""
        count = 0
        for loss in self.losses():
            loss.backward()
            count += 1
        for parameter in self.host.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(count)


def prepare(spec: Spec, name: str, out: Path, rows: int) -> None:
    """Prepare an adapter of a spec on the first rows that the spec learns from, and write it to a new folder.

    Raises:
        AssemblerError: there is no such adapter, it has nothing to prepare, or `out` exists.
    """
    from assembler.batches import Batches, split
    from assembler.check import check
    from assembler.compile import compile_graph
    from assembler.fetching import fetched_graph

    if out.exists():
        raise AssemblerError(f"{out} exists already; choose another folder or remove it")
    if spec.document is None:
        check(spec).require()
    adapters = spec.tree.get("adapters") or {}
    if name not in adapters:
        raise AssemblerError(f"{spec.path}: there is no adapter {name[:80]}{nearest(name, adapters)}")
    fresh = {**spec.tree, "adapters": {**adapters, name: {**adapters[name], "weights": "random"}}}
    graph = fetched_graph(Spec(spec.path, Document.model_validate(fresh), fresh)).require()
    part = graph.adapters[name]
    assembly = compile_graph(graph)
    assembly.requires_grad_(False)

    def drawn() -> Iterator[dict[str, Tensor]]:
        learn, _ = split(graph)
        batches = Batches(graph)
        for index in range(min(rows, len(learn))):
            yield batches([learn[index]])

    host = assembly.nodes[part.host]
    try:
        part.prepare(Trial(host, name, graph.base, drawn, assembly))
    except AssemblerError as error:
        raise AssemblerError(f"{spec.path}: adapters.{name}: {error}") from error
    save_adapter(host, name, out)
