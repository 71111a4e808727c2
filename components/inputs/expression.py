"""Cells come in here: the expression of their genes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from assembler.bundle.manifest import ExpressionProcessor
from assembler.errors import AssemblerError
from assembler.genes import MAX_GENES, check_genes, read_genes
from assembler.part import Part
from assembler.registry import register
from assembler.values import Dim, Value, value
from assembler.weights import located, parse_source, sourced


@register
class ExpressionInput(Part):
    """An expression column of the data, as one number a gene [B, genes], in the order of this node's genes.

    Genes are given as a list, `genes`, or in a file, `vocabulary`: a text with one gene a line, or an h5ad whose genes
    are taken. A gene is its symbol, its Ensembl id (with or without a version), or both with a tab between, and is
    found in the data by either. Genes that the data lacks count as 0 and are reported; data with none of them is
    refused. `normalise` says what a model gets: "log1p_cp10k" makes ln(1 + 10,000 * count / counts of the cell) of raw
    counts, "counts" hands them on, and "none" takes values that are normalised already; a cell of the other kind is
    refused, never guessed at. The node's name is the data column it reads, unless `data.columns` maps it to another.
    Parameters: 0.
    """

    type = "input.expression"

    genes: tuple[str, ...] = Field((), max_length=MAX_GENES, description="symbols or Ensembl ids, in order")
    vocabulary: str | None = Field(None, description="a file (or a source of one) with one gene a line, or an .h5ad")
    normalise: Literal["log1p_cp10k", "counts", "none"] = Field(
        "log1p_cp10k", description="of raw counts: logarithms or as they are; none: normalised already"
    )

    @classmethod
    def examples(cls) -> list[tuple[dict[str, Any], int | None]]:
        part = {"type": cls.type, "genes": ["CD3D", "CD8A", "ENSG00000177455"], "normalise": "none"}
        return [({"nodes": {"part": part}}, None)]

    @field_validator("genes")
    @classmethod
    def _each_once(cls, genes: tuple[str, ...]) -> tuple[str, ...]:
        try:
            if genes:
                check_genes(genes, "`genes`")
        except AssemblerError as error:
            raise ValueError(str(error)) from error
        return genes

    @model_validator(mode="after")
    def _one_list(self) -> ExpressionInput:
        if self.vocabulary is not None and sourced(self.vocabulary):
            try:
                parse_source(self.vocabulary)
            except AssemblerError as error:
                raise ValueError(str(error)) from error
        if bool(self.genes) == (self.vocabulary is not None):
            raise ValueError("give the genes as a list `genes` or a file `vocabulary`, one of them")
        return self

    def weight_sources(self) -> dict[str, str]:
        return {"vocabulary": self.vocabulary} if self.vocabulary is not None and sourced(self.vocabulary) else {}

    def named(self, base: Path) -> tuple[str, ...] | None:
        """The genes in order, or None while the file with them is not on this computer.

        Raises:
            AssemblerError: the file cannot be read.
        """
        if self.vocabulary is None:
            return self.genes
        path = located(self.vocabulary, base)
        if path is None:
            return None
        if path.suffix == ".h5ad":
            from assembler.h5ad import genes_of

            return genes_of(path)
        return read_genes(path, path.stat().st_mtime_ns if path.exists() else 0)

    def columns(self, node: str, wired: Collection[str]) -> dict[str, str]:
        return {node: "expression"}

    def shape(self, inputs: dict[str, Value], want: Dim, base: Path) -> Value:
        genes = self.named(base)
        if genes is None:
            return value("expression", facts={"normalise": self.normalise})
        return value("expression", facts={"genes": genes, "normalise": self.normalise}, genes=len(genes))

    def expression_processor(self, base: Path) -> ExpressionProcessor:
        """How a cell becomes this node's tensor, whichever encoder reads it."""
        path = None if self.vocabulary is None else located(self.vocabulary, base)
        if path is None or path.suffix == ".h5ad":
            genes = self.named(base) or ("?",)  # not known before the file is here, and not read before either
            return ExpressionProcessor(genes=genes, normalise=self.normalise)
        return ExpressionProcessor(vocabulary=str(path), normalise=self.normalise)
