"""Stages as a table: what a cell says is what the spec says, and setting it changes that and nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from ui import stages

DOCUMENT = {
    "assembler": 1,
    "nodes": {
        "photo": {"type": "input.image", "size": [32, 32]},
        "eyes": {"type": "encoder.timm", "model": "test_vit", "freeze": True},
        "bridge": {"type": "projector.mlp"},
        "talk": {"type": "backbone.causal_lm"},
    },
    "adapters": {"tune": {"type": "adapter.lora", "host": "talk"}},
    "stages": [{"name": "align", "train": ["bridge"], "lr": 0.01}, {"name": "tune", "train": ["bridge", "tune"]}],
}


def test_inputs_have_no_row_and_a_hosts_only_lora_is_its_state():
    assert stages.rows(DOCUMENT) == ["eyes", "bridge", "talk"]
    assert [stages.cell(DOCUMENT, "talk", i) for i in (0, 1)] == [stages.FROZEN, stages.LORA]
    assert [stages.cell(DOCUMENT, "bridge", i) for i in (0, 1)] == [stages.TRAINED, stages.TRAINED]


def test_a_host_with_two_adapters_has_a_row_for_each():
    both = {**DOCUMENT, "adapters": {**DOCUMENT["adapters"], "more": {"type": "adapter.lora", "host": "talk"}}}
    assert stages.rows(both) == ["eyes", "bridge", "talk", "tune", "more"]
    assert stages.choices(both, "talk") == [stages.FROZEN, stages.TRAINED]
    assert stages.cell(both, "tune", 1) == stages.TRAINED


cells = st.tuples(st.sampled_from(["eyes", "bridge", "talk"]), st.integers(0, 1), st.integers(0, 3))


@given(st.lists(cells, max_size=8))
def test_a_cell_that_is_set_is_read_back_and_no_other_changes(edits):
    document = DOCUMENT
    for row, stage, choice in edits:
        state = stages.choices(document, row)[choice]
        before = {(r, s): stages.cell(document, r, s) for r in stages.rows(document) for s in (0, 1)}
        document = stages.set_cell(document, row, stage, state)
        after = {(r, s): stages.cell(document, r, s) for r in stages.rows(document) for s in (0, 1)}
        assert after == {**before, (row, stage): state}
        assert all(len(set(s["train"])) == len(s["train"]) for s in document["stages"])
        frozen = document["nodes"][row].get("freeze")
        assert not (frozen and state in (stages.TRAINED, stages.BOTH))


def test_a_lora_is_attached_under_a_free_name_where_there_is_none():
    taken = {**DOCUMENT, "nodes": {**DOCUMENT["nodes"], "eyes_lora": {"type": "input.text"}}}
    found = stages.set_cell(taken, "eyes", 0, stages.LORA)
    assert found["adapters"]["eyes_lora2"] == {"type": "adapter.lora", "host": "eyes"}
    assert "eyes_lora2" in found["stages"][0]["train"] and found["nodes"]["eyes"]["freeze"]


def test_a_default_that_is_not_written_stays_unwritten():
    assert stages.set_setting(DOCUMENT, 0, "batch", 8) == DOCUMENT
    assert stages.set_setting(DOCUMENT, 0, "batch", 4)["stages"][0]["batch"] == 4
    assert stages.set_setting(DOCUMENT, 0, "lr", 1e-3)["stages"][0]["lr"] == 1e-3


def test_a_first_stage_trains_what_is_small_and_a_later_one_what_the_last_did():
    bare = {**DOCUMENT, "stages": []}
    first = stages.add_stage(bare)["stages"]
    assert first == [{"name": "align", "train": ["bridge", "tune"]}]
    third = stages.add_stage(DOCUMENT)["stages"]
    assert third[2] == {"name": "stage3", "train": ["bridge", "tune"]}
    assert stages.remove_stage(DOCUMENT, 0)["stages"] == [DOCUMENT["stages"][1]]


def test_whose_losses_count_is_unwritten_where_all_do():
    names = ["talk", "kind"]
    assert stages.counted(DOCUMENT, 0, names) == names
    one = stages.set_counted(DOCUMENT, 0, names, ["kind"])
    assert one["stages"][0]["objectives"] == ["kind"] and stages.counted(one, 0, names) == ["kind"]
    assert stages.set_counted(one, 0, names, names) == stages.set_counted(one, 0, names, []) == DOCUMENT
