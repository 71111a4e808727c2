"""Groups of rows that training sees more often than they are."""

import json
from collections import Counter
from pathlib import Path

import pytest

from assembler.batches import split, tempered
from assembler.check import check
from assembler.graph import Graph
from assembler.spec import parse

SPEC = """
assembler: 1
nodes:
  text: {{type: input.text}}
data: {{type: dataset.jsonl, options: {{path: rows.jsonl, columns: {{text: text, task: label}}}}, held_out: 0,
  sample: {{by: {by}, temperature: {temperature}}}}}
"""
TASKS = {0: 800, 1: 50, 2: 1}


def graph_in(folder: Path, temperature: float, by: str = "task") -> Graph:
    rows = [{"text": f"{task} {i}", "task": task} for task, count in TASKS.items() for i in range(count)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return check(parse(SPEC.format(by=by, temperature=temperature), folder / "spec.yaml"))


@pytest.mark.parametrize(("temperature", "shares"), [(1, TASKS), (2, {0: 800, 1: 200, 2: 28}), (1000, None)])
def test_a_group_has_the_share_of_its_size_to_the_power_of_one_over_the_temperature(tmp_path, temperature, shares):
    graph = graph_in(tmp_path, temperature)
    learned, _ = split(graph)
    rows = tempered(graph, learned)
    seen = Counter(rows[i]["text"] for i in range(len(rows)))
    assert len(seen) == sum(TASKS.values())  # no row is left out
    found = Counter()
    for text, count in seen.items():
        found[int(text[0])] += count
    if shares is None:
        assert min(found.values()) > 0.98 * max(found.values())
    else:
        assert found == shares
    in_one = [count for text, count in seen.items() if text[0] == "1"]
    assert max(in_one) - min(in_one) <= 1


def test_a_column_that_is_not_there_is_a_problem(tmp_path):
    problems = [problem.message for problem in graph_in(tmp_path, 2, by="tusk").problems]
    assert any("data.sample.by: the data has no column tusk" in message and "task" in message for message in problems)


@pytest.mark.parametrize(
    "data", ["type: dataset.digits", "type: dataset.jsonl, options: {path: rows.jsonl, columns: {text: text}}"]
)
@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 1 / 7])
def test_the_folds_hold_out_every_row_once(tmp_path, data, share):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"row {i}"}) for i in range(300)))
    held, whole = [], set()
    for fold in range(int(1 / share + 1e-9)):
        body = f"assembler: 1\nnodes: {{}}\ndata: {{{data}, held_out: {share}, fold: {fold}}}\n"
        learned, out = split(check(parse(body, tmp_path / "spec.yaml")))
        assert not {*learned.indices} & {*out.indices}
        held, whole = held + out.indices, {*learned.indices, *out.indices}
    assert len(held) == len({*held})
    assert len(held) == pytest.approx(int(1 / share + 1e-9) * share * len(whole), abs=30)
    if share in (0.2, 0.5):
        assert {*held} == whole


def test_a_fold_past_all_rows_is_refused(tmp_path):
    graph = check(parse("assembler: 1\ndata: {type: dataset.digits, held_out: 0.3, fold: 3}\n", tmp_path / "x.yaml"))
    assert "2 is the last" in graph.problems[0].message
