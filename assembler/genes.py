"""Genes by name: lists of them, and one list found in another by symbol or by Ensembl id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from assembler.errors import AssemblerError

MAX_GENES = 100_000
_VERSION = re.compile(r"(ENS[A-Z]*\d{6,})\.\d+")


def plain(name: str) -> str:
    """A gene's name without the version of its Ensembl id: ENSG00000141510.17 is ENSG00000141510."""
    found = _VERSION.fullmatch(name)
    return found[1] if found else name


def aliases(entry: str) -> list[str]:
    """The names of one gene: a symbol and an Ensembl id in either order, parted by a tab, or one of them."""
    return [plain(name.strip()) for name in entry.split("\t") if name.strip()]


@lru_cache(16)
def read_genes(path: Path, changed: int) -> tuple[str, ...]:
    """The genes of a text file, one a line, as `aliases` reads them; `changed` is the file's time of change.

    Raises:
        AssemblerError: it cannot be read, has none, too many, or one twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AssemblerError(f"{path} cannot be read ({error}); give a text file with one gene a line") from error
    genes = tuple("\t".join(aliases(line)) for line in lines if line.strip())
    check_genes(genes, str(path))
    return genes


def check_genes(genes: Sequence[str], where: str) -> None:
    """Raises AssemblerError where a list has no gene, too many or one twice."""
    if not 1 <= len(genes) <= MAX_GENES:
        raise AssemblerError(f"{where} has {len(genes):,} genes; give 1 to {MAX_GENES:,}")
    seen: set[str] = set()
    for gene in genes:
        names = aliases(gene)
        twice = next((name for name in names if name in seen), None)
        if not names:
            raise AssemblerError(f"{where} has a gene without a name; leave it out")
        if twice is not None:
            raise AssemblerError(f"{where} names {twice[:40]} twice; name each gene once")
        seen.update(names)


@lru_cache(64)
def places(wanted: tuple[str, ...], have: tuple[str, ...]) -> tuple[int, ...]:
    """Where each wanted gene stands in `have`, -1 where it does not; the first of several of a name counts."""
    index: dict[str, int] = {}
    for place, entry in enumerate(have):
        for name in aliases(entry):
            index.setdefault(name, place)
    return tuple(next((index[name] for name in aliases(gene) if name in index), -1) for gene in wanted)
