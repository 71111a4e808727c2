"""The values of frozen nodes are computed once a sample, and a run is what it is without that."""

import json
import os

import pytest
import torch

from assembler import features
from assembler.batches import Batches, split
from assembler.check import check
from assembler.compile import compile_graph
from assembler.features import Features, Store, frontier, identity, kept
from assembler.ragged import Ragged
from assembler.spec import override
from assembler.train import Metrics, train

LIMIT = 2**30


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "features_folder", lambda: tmp_path / "features")
    return tmp_path / "features"


def losses(run) -> list[float]:
    return [json.loads(line)["loss"] for line in run.metrics_path.read_text().splitlines()]


def staged(spec, stage: int = 0):
    """Graph, model and rows as they are when a stage begins."""
    graph = check(spec).require()
    assembly = compile_graph(graph)
    assembly.train_only(graph.document.stages[stage].train)
    return graph, assembly.train(), split(graph)[0]


def batches_of(graph, assembly, rows, limit=LIMIT) -> Features:
    found = kept(graph, assembly, Batches(graph), rows, limit, "fp32")
    assert found is not None
    return found


@pytest.fixture
def few(spec):
    """The spec with fewer rows than it takes samples."""
    return override(spec, "data.held_out=0.99")


def test_a_run_with_kept_values_learns_what_one_without_does(few, tmp_path, folder):
    spec = override(few, "adapters.tune.dropout=0.0")
    with_cache, without = train(spec, tmp_path / "a"), train(spec, tmp_path / "b", cache=0)
    assert any(folder.rglob("*")) and losses(with_cache) == pytest.approx(losses(without), rel=1e-4)


def test_a_resumed_run_is_the_unbroken_one_to_the_bit_whatever_was_kept(few, tmp_path, folder, monkeypatch):
    unbroken = train(few, tmp_path / "a")
    on_log = Metrics.on_log

    def broken(self, args, state, control, **knobs):
        on_log(self, args, state, control, **knobs)
        if state.global_step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Metrics, "on_log", broken)
    with pytest.raises(KeyboardInterrupt):
        train(few, tmp_path / "b")
    monkeypatch.undo()
    monkeypatch.setattr(features, "features_folder", lambda: tmp_path / "other")
    assert losses(train(few, tmp_path / "b", resume=True)) == losses(unbroken)


def test_kept_values_are_those_of_the_sample_alone(spec):
    graph, assembly, rows = staged(spec)
    made = batches_of(graph, assembly, rows)
    first, again = made(rows[:5]), made(rows[:5])
    assert made.made == 5 and made.found == 5 and "photo" not in first
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert torch.equal(first["eyes"][3:4], made([rows[3]])["eyes"])
    plain = Batches(graph)(list(rows[:5]))
    assert torch.allclose(assembly(**first)["loss"], assembly(**plain)["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("setting", "ends"),
    [
        ("seed=0", ["eyes"]),
        ("stages.align.train=[tune]", ["bridge"]),
        ("stages.align.train=[eyes]", []),
    ],
)
def test_the_frontier_is_the_last_that_stays(spec, setting, ends):
    changed = override(override(spec, setting), "nodes.eyes.freeze=false")
    graph, assembly, _ = staged(changed)
    assert frontier(graph, assembly) == ends


def test_a_changed_weight_option_or_sample_is_another_value(spec):
    graph, assembly, rows = staged(spec)
    before = identity(graph, assembly, "eyes", "fp32")
    assert before == identity(graph, assembly, "eyes", "fp32") != identity(graph, assembly, "eyes", "bf16")
    with torch.no_grad():
        next(assembly.nodes["eyes"].parameters()).view(-1)[0] += 1e-6
    assert identity(graph, assembly, "eyes", "fp32") != before
    other, model, _ = staged(override(spec, "nodes.eyes.layer=-2"))
    assert identity(other, model, "eyes", "fp32") != before
    made = batches_of(graph, assembly, rows)
    made([rows[0]])
    changed = {**rows[0], "image": rows[0]["image"].point(lambda pixel: pixel // 2)}
    made([changed])
    assert made.made == 2 and made.found == 0


def test_a_damaged_file_is_computed_again(spec, folder):
    graph, assembly, rows = staged(spec)
    made = batches_of(graph, assembly, rows)
    whole = made([rows[0]])["eyes"]
    (file,) = [path for path in folder.rglob("*") if path.is_file()]
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert torch.equal(made([rows[0]])["eyes"], whole) and made.made == 2


def test_padding_is_not_kept_and_comes_back_as_zeros(tmp_path):
    values, mask = torch.randn(2, 600, 10), torch.arange(600) < torch.tensor([[7], [20]])
    store = Store(tmp_path, LIMIT)
    store.write("aa-1", Ragged(values, mask))
    back = store.read("aa-1")
    assert torch.equal(back.values, torch.where(mask.unsqueeze(-1), values, 0)) and torch.equal(back.mask, mask)
    assert store.size < 4000


def test_a_sample_is_prepared_once_a_run(spec, monkeypatch):
    graph, assembly, rows = staged(spec)
    made = batches_of(graph, assembly, rows)
    first = made(rows[:3])
    monkeypatch.setattr(Batches, "samples", lambda *_: pytest.fail("prepared again"))
    assert torch.equal(made(rows[:3])["eyes"], first["eyes"])


def test_what_is_not_asked_for_makes_room_and_what_is_asked_for_stays(tmp_path):
    value = Ragged(torch.randn(1, 25, 10), torch.ones(1, 25, dtype=torch.bool))
    Store(tmp_path, 10_000).write("aa-old", value)
    os.utime(tmp_path / "aa" / "aa-old", (1, 1))  # long before this run
    store = Store(tmp_path, 2700)
    for name in ("aa-1", "bb-2", "cc-3"):
        store.write(name, value)
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["aa-1", "bb-2"] and store.read("cc-3") is None
    assert torch.equal(store.read("aa-1").values, value.values) and store.size <= 2700
