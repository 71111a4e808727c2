"""A cell to the numbers that a model takes: its genes in the model's order, normalised as the spec says."""

import warnings
from pathlib import Path

import numpy as np

from assembler.bundle.manifest import ExpressionProcessor
from assembler.errors import AssemblerError
from assembler.genes import places, read_genes
from assembler.samples import Cell

PER_CELL = 10_000.0
_told: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()


def vocabulary(processor: ExpressionProcessor, base: Path) -> tuple[str, ...]:
    """The genes that the processor wants, in order."""
    if processor.vocabulary is None:
        return processor.genes
    path = base / processor.vocabulary
    return read_genes(path, path.stat().st_mtime_ns if path.exists() else 0)


def expression_array(cell: Cell, processor: ExpressionProcessor, base: Path) -> np.ndarray:
    """The cell as float32 [genes].

    Raises:
        AssemblerError: it has none of the genes, is of the other kind, or holds what is no expression.
    """
    values = np.asarray(cell.values, np.float32)
    if values.shape != (len(cell.genes),):
        raise AssemblerError(
            f"a cell of {len(cell.genes):,} genes has values of the shape {values.shape}; give each one"
        )
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise AssemblerError(
            "a cell holds a value below 0 or no number: scaled values are no expression. Take the raw counts or their "
            "logarithms, which an h5ad file keeps in `raw` or in a layer"
        )
    wanted = vocabulary(processor, base)
    where = np.asarray(places(wanted, cell.genes))
    if (where < 0).all():
        raise AssemblerError(
            f"a cell has none of the {len(wanted):,} genes of the spec ({_some(wanted)}); its own {len(cell.genes):,} "
            f"are {_some(cell.genes)}. Give symbols where the data has symbols and Ensembl ids where it has ids"
        )
    _tell_missing(wanted, cell.genes, where)
    _check_kind(cell, processor)
    found = np.where(where < 0, np.float32(0), values[where])
    if processor.normalise != "log1p_cp10k":
        return found
    total = values.sum(dtype=np.float64)
    if total == 0:
        raise AssemblerError("a cell has no counts at all; leave it out of the data")
    return np.log1p(found * np.float32(PER_CELL / total))


def _check_kind(cell: Cell, processor: ExpressionProcessor) -> None:
    if cell.raw and processor.normalise == "none":
        raise AssemblerError(
            "a cell holds raw counts, and `normalise: none` wants normalised values; set `normalise: log1p_cp10k`"
        )
    if not cell.raw and processor.normalise != "none":
        raise AssemblerError(
            f"a cell is normalised already, and `normalise: {processor.normalise}` wants raw counts; set "
            "`normalise: none`, or give the counts"
        )


def _tell_missing(wanted: tuple[str, ...], have: tuple[str, ...], where: np.ndarray) -> None:
    """Say once, of each pair of lists, which genes count as 0 because the data does not have them."""
    missing = [gene for gene, place in zip(wanted, where, strict=True) if place < 0]
    if missing and (wanted, have) not in _told:
        _told.add((wanted, have))
        text = f"{len(missing):,} of the {len(wanted):,} genes of the spec are not in the data and count as 0: "
        warnings.warn(text + _some(missing), stacklevel=2)


def _some(genes: "tuple[str, ...] | list[str]") -> str:
    names = [gene.replace("\t", "/") for gene in genes[:5]]
    return ", ".join(names) + (", ..." if len(genes) > len(names) else "")
