"""An adapter that is prepared on data: refused before, written to a file, and the same again in training."""

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from assembler.adapters.files import TENSORS
from assembler.cli import app
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.fetching import fetched_graph
from assembler.runs import load_learned, save_learned
from assembler.spec import parse
from assembler.train import train
from tests.assembler.conftest import TWO_STAGES

KORE = TWO_STAGES.replace(
    "{type: adapter.lora, host: talk, rank: 4, dropout: 0.2}", "{type: adapter.kore, host: talk, rank: 4}"
)


def prepare(*words):
    return CliRunner().invoke(app, ["adapters", "prepare", *map(str, words)], catch_exceptions=False)


def test_what_is_found_on_data_comes_back_in_the_model_that_trains(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(KORE)
    with pytest.raises(
        AssemblerError, match=r"adapters.tune: the null space .* `assembler adapters prepare .*small.yaml"
    ):
        train(parse(KORE, path), tmp_path / "run")
    assert prepare(path, "tune", "--rows", 2, "--out", tmp_path / "tune").exit_code == 0
    found = load_file(tmp_path / "tune" / TENSORS)
    named = KORE.replace("rank: 4}", 'rank: 4, weights: "file:tune"}')
    graph = fetched_graph(parse(named, path))
    assembly = compile_graph(graph)
    state = {k.rpartition("adapters.tune.")[2]: x for k, x in assembly.state_dict().items() if "adapters.tune." in k}
    assert found and all(torch.equal(state[key], tensor) for key, tensor in found.items())

    save_learned(assembly, ["tune"], tmp_path / "learned.safetensors")  # what a stage keeps holds the null spaces too
    bare = compile_graph(fetched_graph(parse(KORE, path)))
    load_learned(bare, tmp_path / "learned.safetensors")
    assert all(torch.equal(bare.state_dict()[key], x) for key, x in assembly.state_dict().items() if "adapters" in key)


@pytest.mark.parametrize(
    ("spec", "name", "said"),
    [
        (TWO_STAGES, "tune", "adapter.lora has nothing to prepare"),
        (KORE, "tone", "there is no adapter tone; did you mean tune?"),
        (KORE.replace("rank: 4}", "rank: 400}"), "tune", "`rank` 400 is more than the 32 inputs"),
    ],
)
def test_what_cannot_be_prepared_says_why_and_writes_nothing(spec, name, said, tmp_path):
    (tmp_path / "small.yaml").write_text(spec)
    result = prepare(tmp_path / "small.yaml", name, "--out", tmp_path / "tune")
    assert result.exit_code == 1 and said in result.stderr.replace("\n", " ")
    assert not (tmp_path / "tune").exists()
