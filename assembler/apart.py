"""LoRAs that an export leaves apart from the weights, each with what torch answers when it alone is on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from assembler.adapters.book import Book, adapters_of, top
from assembler.bundle.architecture import architecture_of
from assembler.bundle.switching import Factors, factors_of
from assembler.compile import Assembly
from assembler.errors import AssemblerError


@dataclass(frozen=True)
class Apart:
    """A LoRA by itself: its matrices, and what the model gives with it."""

    name: str
    factors: Factors
    reference: dict[str, Any]


def take_apart(assembly: Assembly, node: str, names: Sequence[str], refer: Callable[[], dict[str, Any]]) -> list[Apart]:
    """Take the LoRAs `names` off the language model `node`; `refer` tells what the model gives as it is then.

    Raises:
        AssemblerError: one is none of its adapters, is combined with others, or is no low-rank change of linears.
    """
    if not names:
        return []
    host: Any = assembly.nodes[node]
    book, shape = adapters_of(host), architecture_of(host.lm.config.get_text_config())
    for name in names:
        if book is None or name not in book.names:
            known = ", ".join(book.names) if book is not None else ""
            raise AssemblerError(f"--switch {name}: {node} has no adapter of that name; it has {known or 'none'}")
        if not book.outermost(name):
            raise AssemblerError(f"--switch {name}: it is combined with others in {book.active}; compose it by itself")
    assert book is not None
    if isinstance(shape, str):
        raise AssemblerError(f"--switch {names[0]}: {node} is traced, since {shape}; leave --switch out")
    found = {name: factors_of(name, book.inserts(name), shape) for name in names}
    kept = [name for name in _outer(book) if name not in names]
    given = []
    for name in names:
        book.activate(f"stack({', '.join([*kept, name])})" if kept else name)
        given.append(Apart(name, found[name], refer()))
    book.activate("" if not kept else kept[0] if len(kept) == 1 else f"stack({', '.join(kept)})")
    for name in names:
        book.remove(name)
    assembly.refresh()
    return given


def _outer(book: Book) -> list[str]:
    """The blocks of the outermost stack, as they are written."""
    return [] if book.tree is None else [str(block) for block in top(book.tree)]
