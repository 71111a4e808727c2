"""Cells: genes found by symbol or id, counts told from logarithms, h5ad files of three generations."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assembler.batches import Batches, split
from assembler.bundle.cells import expression_array
from assembler.bundle.manifest import ExpressionProcessor
from assembler.check import check
from assembler.errors import AssemblerError
from assembler.genes import places, plain, read_genes
from assembler.h5ad import H5ad
from assembler.readers import READERS
from assembler.samples import Cell
from assembler.spec import Document, Spec
from components.datasets.h5ad import H5adCells
from components.inputs.expression import ExpressionInput

EXAMPLE = Path(__file__).parents[2] / "components" / "datasets" / "example" / "cells.h5ad"
counts = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any)
GENES = ("CD3D\tENSG00000167286", "CD14\tENSG00000170458", "ACTB\tENSG00000075624", "MS4A1\tENSG00000156738")


def array(values, raw: bool, **knobs) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return expression_array(Cell(np.float32(values), GENES, raw), ExpressionProcessor(**knobs), Path.cwd())


@settings(deadline=None)
@given(values=counts, order=st.permutations(range(4)), ids=st.lists(st.booleans(), min_size=4, max_size=4))
def test_genes_are_found_by_symbol_or_id_in_any_order(values, order, ids):
    names = [GENES[place].split("\t")[ids[place]] + (".12" if ids[place] else "") for place in order]
    found = array(values, True, genes=(*names, "NOSUCH"), normalise="counts")
    assert found.tolist() == [*(values[place] for place in order), 0]


@settings(deadline=None)
@given(values=counts)
def test_logarithms_are_of_ten_thousand_counts_a_cell_whatever_genes_are_asked_for(values):
    found = array(values, True, genes=("ACTB", "CD14"))
    wanted = np.log1p(np.array(values)[[2, 1]] / sum(values) * 10_000)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "raw", "knobs", "sentence"),
    [
        ([1, 2, 3, 4], True, {"normalise": "none"}, "set `normalise: log1p_cp10k`"),
        ([0.5, 2, 3, 4], False, {}, "set `normalise: none`"),
        ([0.5, 2, 3, 4], False, {"normalise": "counts"}, "wants raw counts"),
        ([0, 0, 0, 0], True, {}, "no counts at all"),
        ([-1.5, 2, 3, 4], False, {"normalise": "none"}, "scaled values are no expression"),
        ([np.nan, 2, 3, 4], False, {"normalise": "none"}, "no number"),
        ([1, 2, 3], True, {}, "4 genes has values of the shape"),
        ([1, 2, 3, 4], True, {"genes": ("Cd3d", "Actb")}, r"none of the 2 genes of the spec \(Cd3d, Actb\)"),
    ],
)
def test_a_cell_of_another_kind_is_refused_with_the_way_out(values, raw, knobs, sentence):
    with pytest.raises(AssemblerError, match=sentence):
        array(values, raw, **{"genes": ("ACTB", "CD14"), **knobs})


def test_missing_genes_are_reported_once():
    cell, processor = Cell(np.ones(4, np.float32), GENES, True), ExpressionProcessor(genes=("CD14", "GONE1", "GONE2"))
    with pytest.warns(
        UserWarning, match="2 of the 3 genes of the spec are not in the data and count as 0: GONE1, GONE2"
    ):
        expression_array(cell, processor, Path.cwd())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expression_array(cell, processor, Path.cwd())


def test_versions_of_ids_do_not_matter_and_a_dot_in_a_symbol_does():
    assert plain("ENSMUSG00000020122.5") == "ENSMUSG00000020122" and plain("RP11-34P13.7") == "RP11-34P13.7"
    assert places(("ENSG00000170458.9",), GENES) == (1,)


@pytest.mark.parametrize(("text", "sentence"), [("A\nB\nA\n", "names A twice"), ("\n", "has 0 genes")])
def test_a_list_of_genes_that_is_none_is_refused(text, sentence, tmp_path):
    (tmp_path / "genes.txt").write_text(text)
    with pytest.raises(AssemblerError, match=rf"genes\.txt {sentence}"):
        ExpressionInput(vocabulary="genes.txt").named(tmp_path)


def test_a_file_of_genes_may_be_a_text_or_an_h5ad(tmp_path):
    (tmp_path / "genes.txt").write_text("CD14\tENSG00000170458.3\n\nACTB\n")
    assert read_genes(tmp_path / "genes.txt", 0) == ("CD14\tENSG00000170458", "ACTB")
    assert ExpressionInput(vocabulary=str(EXAMPLE)).named(tmp_path)[1] == "CD3D\tENSG00000167286"


@pytest.mark.parametrize(("matrix", "raw"), [("X", True), ("layers/log", False)])
def test_counts_are_told_from_logarithms(matrix, raw):
    file = H5ad(EXAMPLE, matrix)
    assert file.raw is raw and file.cell(0).raw is raw
    assert len(file) == 12 and file.obs_names[0] == "cell0"


def test_the_logarithms_of_the_counts_are_those_that_scanpy_would_make():
    counted, logged = H5ad(EXAMPLE), H5ad(EXAMPLE, "layers/log")
    for index in range(12):
        made = expression_array(counted.cell(index), ExpressionProcessor(genes=counted.genes), Path.cwd())
        np.testing.assert_allclose(made, logged.cell(index).values, rtol=1e-5)


def old_file(path: Path, dense: np.ndarray, sparse: bool) -> None:
    """As anndata wrote it before 0.7: tables as one compound dataset, words of categories in `uns`."""
    rows, columns = dense.shape
    with h5py.File(path, "w") as file:
        obs = np.array([(b"c%d" % i, i % 2) for i in range(rows)], dtype=[("index", "S4"), ("kind", "i1")])
        file["obs"] = obs
        file["var"] = np.array([(b"G%d" % i,) for i in range(columns)], dtype=[("index", "S4")])
        file["uns/kind_categories"] = np.array([b"left", b"right"])
        if not sparse:
            file["X"] = dense
            return
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", dense.shape
        at = np.argwhere(dense)
        group["data"], group["indices"] = dense[dense != 0], at[:, 1]
        group["indptr"] = np.concatenate([[0], np.cumsum((dense != 0).sum(1))])


@settings(max_examples=15, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=4), sparse=st.booleans()
)
def test_files_of_the_old_layout_are_read(values, sparse, tmp_path_factory):
    path, dense = tmp_path_factory.mktemp("old") / "old.h5ad", np.array(values, np.float32)
    old_file(path, dense, sparse)
    file = H5ad(path)
    assert np.array_equal(np.stack([file.cell(i).values for i in range(len(file))]), dense)
    assert file.genes == ("G0", "G1", "G2") and file.column("kind") == [
        ["left", "right"][i % 2] for i in range(len(values))
    ]


def test_nothing_outside_the_file_is_read(tmp_path):
    old_file(tmp_path / "other.h5ad", np.ones((2, 3), np.float32), False)
    old_file(path := tmp_path / "linked.h5ad", np.ones((2, 3), np.float32), False)
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink("other.h5ad", "X")
    with pytest.raises(AssemblerError, match=r"linked\.h5ad: X is a link"):
        H5ad(path)
    (tmp_path / "secret").write_bytes(bytes(24))
    with h5py.File(path, "a") as file:
        del file["X"]
        file.create_dataset("X", (2, 3), "f4", external=[(str(tmp_path / "secret"), 0, 24)])
    with pytest.raises(AssemblerError, match=r"linked\.h5ad: X lies in another file"):
        H5ad(path)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_is_a_sentence_that_names_it(data, tmp_path_factory):
    content = bytearray(EXAMPLE.read_bytes())
    for _ in range(data.draw(st.integers(1, 30))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.h5ad"
    path.write_bytes(content[: data.draw(st.sampled_from([10, 5000, len(content)]))])
    try:
        file = H5ad(path)
        file.cell(5)
        file.column("cell_type")
    except AssemblerError as error:
        assert "damaged.h5ad" in str(error)


def rows_of(**options):
    return H5adCells(path=str(EXAMPLE), **options).rows(Path.cwd())


def test_rows_are_cells_with_what_obs_says_of_them():
    rows = rows_of(text={"name": "cell_type"}, label={"kind": "cell_type", "batch": "batch"}, score={"age": "age"})
    row = rows[4]
    assert (row["name"], row["kind"], row["batch"], row["age"]) == ("T cell", 1, 0, 1.0)
    assert rows.key(4) == "cell4" and "cells.h5ad: cell 4 (cell4)" in rows.place(4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"text": {"name": "celltype"}}, "no column celltype in obs; it has"),
        ({"score": {"age": "cell_type"}}, "holds words, and a score is a number"),
        ({"matrix": "raw"}, "has no matrix raw; it has X, layers/log"),
    ],
)
def test_what_the_file_does_not_have_is_told(options, sentence):
    with pytest.raises(AssemblerError, match=rf"cells\.h5ad.*{sentence}"):
        rows_of(**options)


def spec_of(genes: list[str], on_bad: str = "fail", **options):
    nodes = {
        "cell": {"type": "input.expression", "genes": genes},
        "reads": {"type": "encoder.scmamba", "width": 16, "depth": 1, "output": "pooled"},
        "sort": {"type": "head.classifier", "classes": 3},
    }
    options = {"path": str(EXAMPLE), "label": {"label": "cell_type"}, **options}
    data = {"type": "dataset.h5ad", "options": options, "on_bad": on_bad}
    tree = {"assembler": 1, "nodes": nodes, "edges": ["cell -> reads", "reads -> sort"], "data": data}
    return check(Spec(EXAMPLE.parent / "cells.yaml", Document.model_validate(tree), tree))


@pytest.mark.parametrize(
    ("genes", "options", "sentence"),
    [
        (["Cd3d", "Gapdh"], {}, r"none of the 2 genes of the spec \(Cd3d, Gapdh\); its own \d+ are"),
        (["CD3D"], {"matrix": "layers/log"}, "is normalised already, and `normalise: log1p_cp10k` wants raw counts"),
    ],
)
def test_data_that_does_not_fit_the_spec_is_told_by_file_and_cell(genes, options, sentence):
    graph = spec_of(genes, **options)
    with pytest.raises(AssemblerError, match=rf"cells\.h5ad: cell \d+ \(cell\d+\): cell: a cell.*{sentence}"):
        Batches(graph)(list(split(graph)[0][:2]))


def test_bad_cells_are_left_out_and_counted_where_the_spec_says_so(tmp_path):
    path = tmp_path / "some.h5ad"
    path.write_bytes(EXAMPLE.read_bytes())
    with h5py.File(path, "a") as file:
        file["X/data"][0] = np.nan
    graph = spec_of(["CD3D", "CD14", "ACTB"], on_bad="skip", path=str(path))
    learned, held_out = split(graph)
    assert len(learned) + len(held_out) == 11
    assert [f"{path}: cell 0 holds values that are no numbers" in said for said in graph.bad.values()] == [True]


def test_one_cell_in_a_file_of_its_own_is_a_sample_and_several_are_refused(tmp_path):
    old_file(tmp_path / "one.h5ad", np.ones((1, 3), np.float32), False)
    assert READERS["expression"](tmp_path / "one.h5ad").genes == ("G0", "G1", "G2")
    with pytest.raises(AssemblerError, match=r"cells\.h5ad holds 12 cells"):
        READERS["expression"](EXAMPLE)


def test_the_real_set_of_scanpy_is_read_from_its_wheel(tmp_path):
    source = "pypi:scanpy==1.11.5/scanpy/datasets/10x_pbmc68k_reduced.h5ad"
    part = H5adCells(path=source, matrix="raw", text={"name": "bulk_labels"}, label={"kind": "bulk_labels"})
    part.fetch(tmp_path)
    rows = part.rows(tmp_path)
    assert len(rows) == 700 and len({rows.plain(i)["name"] for i in range(700)}) == 10
    cell = rows[3]["cell"]
    assert not cell.raw and len(cell.genes) == 765 and cell.values.min() == 0
    genes = ExpressionInput(vocabulary=source, normalise="none")
    assert genes.named(tmp_path) == cell.genes
    assert np.array_equal(expression_array(cell, genes.expression_processor(tmp_path), tmp_path), cell.values)
