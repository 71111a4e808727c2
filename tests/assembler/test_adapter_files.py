"""Adapters in files, by the command line: out of a run, into another spec, averaged, compared, refused when wrong."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from assembler.adapters.files import load_adapter, save_adapter
from assembler.cli import app
from assembler.compile import compile_graph
from assembler.runs import load_run
from components.adapters.lora import Lora
from components.adapters.parallel import Parallel
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_matrix import batch_of, graph_of


def run(*words):
    return CliRunner().invoke(app, ["adapters", *map(str, words)], catch_exceptions=False)


@pytest.fixture
def two(tmp_path):
    """Two LoRAs of one host, in files."""
    for seed, name in enumerate(("one", "two")):
        host = host_of("llama")
        new = Lora(host="h", rank=2 + seed, alpha=5).attach(host, name, seed)
        with torch.no_grad():
            for key, parameter in host.named_parameters():
                if key in new:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
        save_adapter(host, name, tmp_path / name)
    return tmp_path


def test_an_adapter_goes_from_a_run_to_a_file_and_into_another_spec(unbroken, tmp_path):
    rows = json.loads(run("list", unbroken.folder, "--json").output)
    assert rows == [{"name": "tune", "method": "adapter.lora", "parameters": 2 * 4 * (64 + 64)}]
    assert run("extract", unbroken.folder, "tune", "--out", tmp_path / "tune").exit_code == 0
    report = json.loads(run("show", tmp_path / "tune", "--json").output)
    assert report["method"] == "LORA" and report["parameters"] == rows[0]["parameters"]
    graph, assembly = load_run(unbroken.folder)
    tree = {"nodes": graph.document.nodes, "edges": graph.document.edges}
    tune = {**graph.document.adapters["tune"], "weights": f"file:{tmp_path / 'tune'}"}
    other = compile_graph(graph_of({**tree, "adapters": {"tune": tune}}))
    state = assembly.state_dict()
    assert other.adapters["tune"]
    assert all(torch.equal(other.state_dict()[key], state[key]) for key in other.adapters["tune"])
    again = run("extract", unbroken.folder, "tune", "--out", tmp_path / "tune")
    assert again.exit_code == 1 and "exists already" in again.stderr
    assert "did you mean tune?" in run("extract", unbroken.folder, "tone", "--out", tmp_path / "x").stderr


def test_merged_loras_change_what_the_weighted_sum_of_their_changes_does(two):
    assert run("merge", two / "one", two / "two", "--weights", "0.7,0.3", "--out", two / "both").exit_code == 0
    deltas = []
    for name in ("one", "two", "both"):
        host, bare = host_of("llama"), host_of("llama")
        load_adapter(host, two / name, "tune")
        host.adapters._book.merge("tune")
        pairs = zip(host.parameters(), bare.parameters(), strict=True)
        deltas.append([a.detach() - b.detach() for a, b in pairs])
    for one, other, both in zip(*deltas, strict=True):
        torch.testing.assert_close(both, 0.7 * one + 0.3 * other, rtol=1e-4, atol=1e-5)


def test_other_methods_are_averaged_by_their_parameters(tmp_path):
    for seed in (0, 1):
        host = host_of("bert")
        Parallel(host="h", size=4, init="bert").attach(host, "side", seed)
        save_adapter(host, "side", tmp_path / f"side{seed}")
    assert run("merge", tmp_path / "side0", tmp_path / "side1", "--out", tmp_path / "mean").exit_code == 0
    files = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("side0", "side1", "mean")]
    assert all(torch.allclose((files[0][key] + files[1][key]) / 2, files[2][key]) for key in files[0])
    host = host_of("bert")
    load_adapter(host, tmp_path / "mean", "side")
    assert HOSTS["bert"].run(host).isfinite().all()


def test_what_differs_is_told(two):
    same = run("diff", two / "one", two / "one", "--json")
    assert same.exit_code == 0 and json.loads(same.output)["same"]
    other = run("diff", two / "one", two / "two", "--json")
    assert other.exit_code == 1
    assert json.loads(other.output)["options"]["r"] == [2, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "{}/none"], "holds no adapter: it has no adapter_config.json"),
        (["list", "{}/empty"], "holds no adapters"),
        (["merge", "{}/one", "{}/two", "--weights", "1", "--out", "{}/x"], "there are 2 adapters, so give 2 numbers"),
        (["merge", "{}/one", "{}/two", "--weights", "1,b", "--out", "{}/x"], "write numbers, such as 0.7,0.3"),
        (["show", "{}/cut"], "adapter_model.safetensors"),
        (["show", "{}/garbled"], "adapter_config.json is no JSON"),
        (["merge", "{}/one", "{}/stranger", "--out", "{}/x"], "is not in both"),
    ],
)
def test_a_wrong_file_is_one_sentence_and_nothing_is_written(two, words, said):
    (two / "empty").mkdir()
    for name in ("cut", "garbled", "stranger"):
        host = host_of("llama")
        load_adapter(host, two / "one", "tune")
        save_adapter(host, "tune", two / name)
    whole = (two / "cut" / "adapter_model.safetensors").read_bytes()
    (two / "cut" / "adapter_model.safetensors").write_bytes(whole[: len(whole) // 2])
    (two / "garbled" / "adapter_config.json").write_text('{"peft_type": ')
    tensors = load_file(two / "stranger" / "adapter_model.safetensors")
    save_file({f"x.{key}": tensor for key, tensor in tensors.items()}, two / "stranger" / "adapter_model.safetensors")
    result = run(*[word.format(two) for word in words])
    assert result.exit_code == 1 and said in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (two / "x").exists()


def test_the_spec_of_a_missing_file_says_so(tmp_path):
    lm = {"type": "backbone.causal_lm", "arch": "llama", "config": {"vocab_size": 300, "hidden_size": 32}}
    lm["config"] |= {"num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    tune = {"type": "adapter.lora", "host": "talk", "weights": f"file:{tmp_path / 'none'}"}
    tree = {"nodes": {"talk": {**lm, "prompt": "{q} {answer}"}}, "adapters": {"tune": tune}}
    with pytest.raises(Exception, match=r"adapters\.tune: .*none"):
        compile_graph(graph_of(tree))
    bare = compile_graph(graph_of(tree), device="meta", load=False)
    assert batch_of(graph_of(tree), 1) and bare.adapters["tune"]
