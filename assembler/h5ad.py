"""Cells of an h5ad file (AnnData's), read row by row with h5py alone.

Three generations of the layout are read: groups with an `encoding-type` (anndata from 0.7.5), groups without one
(0.7), and tables as one compound dataset (before 0.7), in which categories lie in `uns`. Nothing that a file keeps
elsewhere, by an external or soft link or in another file's bytes, is followed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from assembler.errors import AssemblerError, told
from assembler.genes import MAX_GENES, aliases, plain
from assembler.samples import Cell

MAX_CELLS = 20_000_000
MAX_TURNED = 2**29
"""Values of a matrix kept by columns, which is turned in memory."""
PROBED = 256
"""Cells that are looked at to tell raw counts from normalised values."""
ENSEMBL = re.compile(r"ENS[A-Z]*\d{6,}")
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "feature_id")
SYMBOL_COLUMNS = ("gene_symbols", "gene_symbol", "gene_name", "feature_name", "symbol")


class H5ad:
    """The cells of a file: the `matrix` named X, raw or layers/NAME, its genes, and the columns of `obs`.

    Raises:
        AssemblerError: the file is not there, is no h5ad, or has no such matrix.
    """

    def __init__(self, path: Path, matrix: str = "X") -> None:
        self.path, self.matrix = path, matrix
        if not path.is_file():
            raise AssemblerError(f"{path} is not there; check the path")
        with told(f"{path} is no h5ad that can be read"):
            self.file = h5py.File(path, "r")
            self._data = self._found(matrix)
            self.genes = self._genes()
            self.cells = self._cells()
            self.raw = self._looks_raw()

    def __reduce__(self) -> Any:
        return H5ad, (self.path, self.matrix)  # an open file does not go to another process

    def __len__(self) -> int:
        return self.cells

    def cell(self, index: int) -> Cell:
        """One cell, with the values of all its genes."""
        with told(f"{self.path}: cell {index} cannot be read"):
            values = self._row(index)
        if not np.isfinite(values).all():
            raise AssemblerError(f"{self.path}: cell {index} holds values that are no numbers; leave it out")
        return Cell(values, self.genes, self.raw)

    def column(self, name: str) -> list[str] | list[int] | list[float]:
        """A column of `obs`: the words of a category or text, or numbers.

        Raises:
            AssemblerError: there is none, or it is of no such kind.
        """
        with told(f"{self.path}: the column {name[:60]} of obs cannot be read"):
            found = self._table("obs")
            if name not in found:
                have = ", ".join(sorted(found)) or "none"
                raise AssemblerError(f"{self.path} has no column {name[:60]} in obs; it has {have[:300]}")
            return self._values(found[name], name)[: self.cells].tolist()

    @cached_property
    def obs_names(self) -> list[str]:
        """The cells' own names."""
        with told(f"{self.path}: the names of the cells cannot be read"):
            return [str(name) for name in self._index("obs")]

    def _found(self, matrix: str) -> Any:
        places = {"X": ["X"], "raw": ["raw/X", "raw.X"]}.get(matrix, [matrix])
        for place in places:
            found = self._inside(place)
            if found is not None:
                return found
        layers = self._inside("layers")
        have = ["X", *(["raw"] if self._inside("raw/X") or self._inside("raw.X") else [])]
        have += [f"layers/{name}" for name in (layers or ())]
        raise AssemblerError(f"{self.path} has no matrix {matrix[:60]}; it has {', '.join(have)[:300]}")

    def _inside(self, place: str) -> Any:
        """A group or dataset whose every step and byte is in this file; None where there is none."""
        here: Any = self.file
        for name in place.split("/"):
            if not isinstance(here, h5py.Group) or name not in here:
                return None
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                raise AssemblerError(f"{self.path}: {place} is a link, and links are not followed; write the file anew")
            here = here[name]
        if isinstance(here, h5py.Dataset) and (here.external or here.is_virtual):
            raise AssemblerError(f"{self.path}: {place} lies in another file, which is not read; write the file anew")
        return here

    def _cells(self) -> int:
        count = len(self._index("obs"))
        rows, columns = self._shape()
        if (rows, columns) != (count, len(self.genes)):
            raise AssemblerError(
                f"{self.path}: {self.matrix} is {rows} x {columns}, and there are {count} cells and {len(self.genes)} "
                "genes; the file is damaged"
            )
        if not 1 <= count <= MAX_CELLS:
            raise AssemblerError(f"{self.path} has {count:,} cells; give 1 to {MAX_CELLS:,}")
        return count

    def _shape(self) -> tuple[int, int]:
        if isinstance(self._data, h5py.Dataset):
            shape = self._data.shape
        else:
            shape = self._data.attrs.get("shape", self._data.attrs.get("h5sparse_shape"))
        if shape is None or len(shape) != 2:
            raise AssemblerError(f"{self.path}: {self.matrix} is no matrix of cells and genes; name another")
        return int(shape[0]), int(shape[1])

    @cached_property
    def _sparse(self) -> tuple[Any, Any, np.ndarray]:
        """Values, columns and row starts of a matrix kept by rows; one kept by columns is turned, in memory."""
        kind = self._data.attrs.get("encoding-type", self._data.attrs.get("h5sparse_format", ""))
        kind = (kind.decode() if isinstance(kind, bytes) else str(kind)).removesuffix("_matrix")
        group = self._data.name
        data, indices, indptr = (self._inside(f"{group}/{part}".strip("/")) for part in ("data", "indices", "indptr"))
        if kind not in ("csr", "csc") or data is None or indices is None or indptr is None:
            raise AssemblerError(f"{self.path}: {self.matrix} is kept in the form {kind[:40]!r}, and csr is wanted")
        if indptr.shape != (self._shape()[kind == "csc"] + 1,) or data.shape != indices.shape:
            raise AssemblerError(f"{self.path}: {self.matrix} has parts that do not fit; the file is damaged")
        if kind == "csr":
            return data, indices, indptr[:]
        if data.size > MAX_TURNED:
            raise AssemblerError(f"{self.path}: {self.matrix} is large and kept by columns (csc); write it as csr")
        from scipy.sparse import csc_matrix

        turned = csc_matrix((data[:], indices[:], indptr[:]), shape=self._shape()).tocsr()
        return turned.data, turned.indices, turned.indptr

    def _row(self, index: int) -> np.ndarray:
        if isinstance(self._data, h5py.Dataset):
            return np.asarray(self._data[index], np.float32)
        data, indices, starts = self._sparse
        first, last = int(starts[index]), int(starts[index + 1])
        values = np.zeros(len(self.genes), np.float32)
        values[np.asarray(indices[first:last])] = data[first:last]
        return values

    def _looks_raw(self) -> bool:
        """Raw counts are whole numbers from 0, in cells spread over the file; damaged cells have no say."""
        step = max(1, self.cells // PROBED)
        probed = (row for row in map(self._row, range(0, self.cells, step)) if np.isfinite(row).all())
        return all(bool((row >= 0).all() and (row == np.round(row)).all()) for row in probed)

    def _genes(self) -> tuple[str, ...]:
        table = "var"
        if self.matrix == "raw":
            table = "raw/var" if self._inside("raw/var") is not None else "raw.var"
        names = [str(name) for name in self._index(table)]
        if not 1 <= len(names) <= MAX_GENES:
            raise AssemblerError(f"{self.path} has {len(names):,} genes; give 1 to {MAX_GENES:,}")
        others = self._others(table, names)
        return tuple("\t".join(dict.fromkeys(aliases(f"{a}\t{b}"))) for a, b in zip(names, others, strict=True))

    def _others(self, table: str, names: list[str]) -> Sequence[str]:
        """The genes' other names, where a column gives them: ids beside symbols, symbols beside ids."""
        ids = ENSEMBL.fullmatch(plain(names[0])) is not None
        found = self._table(table)
        for column in SYMBOL_COLUMNS if ids else ID_COLUMNS:
            if column in found:
                return [str(name) for name in self._values(found[column], column)]
        return [""] * len(names)

    def _table(self, name: str) -> dict[str, Any]:
        """The columns of `obs` or `var`."""
        found = self._inside(name)
        if found is None:
            raise AssemblerError(f"{self.path} has no {name}; it is no h5ad, or is cut off")
        if isinstance(found, h5py.Dataset):
            return {} if found.dtype.names is None else {column: found[column] for column in found.dtype.names}
        return {column: self._inside(f"{name}/{column}") for column in found if not column.startswith("__")}

    def _index(self, name: str) -> np.ndarray:
        found = self._table(name)
        holder = self._inside(name)
        column = holder.attrs.get("_index", "index" if "index" in found else "_index")
        column = column.decode() if isinstance(column, bytes) else str(column)
        if column not in found:
            raise AssemblerError(f"{self.path}: {name} has no index; the file is damaged")
        return self._values(found[column], column)

    def _values(self, column: Any, name: str) -> np.ndarray:
        """A column as an array of texts or numbers, its categories put in."""
        if isinstance(column, h5py.Group):
            parts = {part: self._inside(f"{column.name}/{part}".strip("/")) for part in column}
            if "categories" in parts and "codes" in parts:
                return _coded(parts["codes"][:], _texts(parts["categories"]))
            if "values" in parts and "mask" in parts and not parts["mask"][:].any():
                return _texts(parts["values"])
            raise AssemblerError(f"{self.path}: the column {name} is of a kind that is not read, or has gaps")
        table = str((getattr(column, "parent", None) and column.parent.name) or "").strip("/")
        older = self._inside(f"{table}/__categories/{name}") if table else self._inside(f"uns/{name}_categories")
        values = _texts(column)
        return values if older is None or values.dtype.kind not in "iu" else _coded(values, _texts(older))


def _texts(column: Any) -> np.ndarray:
    if len(column) > MAX_CELLS:
        raise AssemblerError(f"a column has {len(column):,} entries; at most {MAX_CELLS:,} are read")
    values = np.asarray(column[:])
    if values.dtype.kind in "SO":
        decoded = [x.decode("utf-8", "replace") if isinstance(x, bytes) else str(x) for x in values]
        return np.array(decoded, dtype=object)
    return values


def _coded(codes: np.ndarray, words: np.ndarray) -> np.ndarray:
    """The words by their codes; -1 says that a cell has none."""
    return np.array(["" if code < 0 else str(words[code]) for code in codes], dtype=object)


@lru_cache(8)
def _genes_of(path: Path, changed: int) -> tuple[str, ...]:
    return H5ad(path).genes


def genes_of(path: Path) -> tuple[str, ...]:
    """The genes of the file's X, in its order.

    Raises:
        AssemblerError: it cannot be read.
    """
    return _genes_of(path, path.stat().st_mtime_ns if path.exists() else 0)
