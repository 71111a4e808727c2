"""One decoder in memory answers as several models: the LoRAs of a bundle, one of them a request or none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from assembler.adapters.book import adapters_of
from assembler.bundle.runtime import Bundle
from assembler.check import check
from assembler.cli import app
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.evaluate import TorchAnswers
from assembler.export import export
from assembler.serving.app import create_app
from assembler.serving.engine import Engine, Request
from assembler.serving.limits import Limits
from assembler.serving.model import Model
from assembler.spec import parse

SPEC = """\
assembler: 1
nodes:
  talk:
    type: backbone.causal_lm
    arch: ARCH
    config: CONFIG
    max_new_tokens: 6
    prompt: "{question} {answer}"
adapters:
  formal: {type: adapter.lora, host: talk, sites: "layers.*.attn.{q,v}", rank: 4}
  brief: {type: adapter.lora, host: talk, sites: "layers.*.{attn.o,mlp.down}", rank: 2}
  kept: {type: adapter.lora, host: talk, sites: "layers.*.attn.k", rank: 2}
"""
LLAMA = "{vocab_size: 300, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2}"
GPT2 = "{vocab_size: 300, n_embd: 32, n_layer: 2, n_head: 2, n_positions: 128}"
ROWS = [{"question": text, "answer": "abc"} for text in ("what is it?", "who?", "how many are there now?")]
NAMES = (None, "formal", "brief")


def made(arch: str, config: str):
    graph = check(parse(SPEC.replace("ARCH", arch).replace("CONFIG", config), Path("spec.yaml"))).require()
    assembly = compile_graph(graph).eval()
    with torch.no_grad():
        for key, parameter in assembly.named_parameters():
            if ".adapters." in key:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(key))))
    return graph, assembly


@pytest.fixture(scope="module", params=[("llama", LLAMA), ("gpt2", GPT2)], ids=["llama", "gpt2"])
def switched(request, tmp_path_factory):
    """(the bundle, its report, torch's answers by adapter)."""
    graph, assembly = made(*request.param)
    book, wanted = adapters_of(assembly), {}
    for name in NAMES:
        book.activate("kept" if name is None else f"stack(kept, {name})")
        wanted[name] = TorchAnswers(graph, assembly).ids(ROWS)
    book.activate("stack(formal, brief, kept)")
    folder = tmp_path_factory.mktemp("switched") / "bundle"
    report = export(graph, assembly, folder, "fp32", ROWS, switch=["formal", "brief"])
    return Bundle(folder), report, wanted


def test_each_adapter_answers_as_torch_does_with_it_alone(switched):
    bundle, report, wanted = switched
    assert len({str(ids) for ids in wanted.values()}) == 3  # they differ, so that a mix-up would be seen
    for name in NAMES:
        assert bundle.generate_ids([{"question": row["question"]} for row in ROWS], adapter=name) == wanted[name]
    rows = {row["graph"]: row for row in report["graphs"]}
    assert all(rows[f"end to end, with {name}"]["ok"] for name in NAMES[1:])


def test_in_4_bits_the_graph_for_long_prompts_is_compared_with_each_adapter_too(tmp_path, capfd):
    graph, assembly = made("llama", LLAMA)
    report = export(graph, assembly, tmp_path / "out", "int4", ROWS, max_kl=10.0, switch=["formal", "brief"])
    runner = [sys.executable, str(tmp_path / "out" / "run_bundle.py"), "--text", "question=who?"]
    assert subprocess.run(runner, check=True).returncode == 0
    assert "onnxruntime" not in capfd.readouterr().err  # it would warn of each matrix
    rows = {row["graph"]: row for row in report["graphs"]}
    ways = {"", ", with formal", ", with brief"}
    assert set(rows) == {f"{graph}{way}" for graph in ("end to end", "prompts.onnx") for way in ways}
    assert report["ok"] and len({row["max_abs"] for row in rows.values()}) == 6
    assert all(row["ok"] and row["kl"] < 0.1 for name, row in rows.items() if name != "end to end")
    strict = made("llama", LLAMA)
    with pytest.raises(AssemblerError, match="nats"):
        export(*strict, tmp_path / "strict", "int4", ROWS, max_kl=1e-9, switch=["formal"])
    assert not (tmp_path / "strict").exists()


def test_requests_with_different_adapters_share_a_batch_and_its_cache_without_mixing(switched):
    bundle, _, wanted = switched
    engine = Engine(bundle, rows=4, context=96)
    asked = [(name, i) for _ in range(2) for i in range(len(ROWS)) for name in NAMES]
    answers = [engine.submit(Request({"question": ROWS[i]["question"]}, adapter=name)) for name, i in asked]
    for (name, i), answer in zip(asked, answers, strict=True):
        assert answer.text() == bundle.text(wanted[name][i])
    unknown = engine.submit(Request({"question": "who?"}, adapter="rude"))
    with pytest.raises(AssemblerError, match="no adapter 'rude'; it has formal, brief"):
        unknown.text()
    engine.close(5)


def test_a_server_offers_each_adapter_as_a_model_and_the_command_line_as_an_option(switched):
    bundle, _, wanted = switched
    told = bundle.text(wanted["formal"][1])
    done = CliRunner().invoke(app, ["ask", str(bundle.folder), "--prompt", "who?", "--adapter", "formal"])
    assert done.output.strip() == told.strip(), done.output
    with TestClient(create_app(Model(bundle.folder, Limits(context=96)), Limits(context=96))) as client:
        names = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert names == ["model", "model:formal", "model:brief"]
        body = {"model": "model:formal", "messages": [{"role": "user", "content": "who?"}]}
        answer = client.post("/v1/chat/completions", json=body).json()
        assert answer["model"] == "model:formal" and answer["choices"][0]["message"]["content"] == told
        assert client.post("/v1/chat/completions", json={**body, "model": "model:rude"}).status_code == 404


def test_any_program_takes_the_files_by_onnxruntimes_own_interface(switched):
    bundle, _, _ = switched
    embeds, lengths = bundle.encode([{"question": "who?"}])
    feeds = {"inputs_embeds": embeds, "attention_mask": np.ones((1, lengths[0]), np.int64)}
    feeds |= {x.name: np.zeros((1, x.shape[1], 0, x.shape[3]), np.float32) for x in bundle.decoding().past}
    adapter, options = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
    adapter.Load(str(bundle.folder / bundle.manifest.adapters["brief"]))
    options.add_active_adapter(adapter)
    logits = bundle.decoder.run(["logits"], feeds, options)[0]
    np.testing.assert_allclose(logits, bundle.logits([{"question": "who?"}], "brief"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("switch", "change", "sentence"),
    [
        ("rude", "", "talk has no adapter of that name; it has formal, brief, kept"),
        ("formal", "compose: {talk: 'average(formal, brief)'}\n", "combined with others"),
        ("deep", "  deep: {type: adapter.lora, host: talk, rank: 2, dora: true}\n", "no plain LoRA"),
    ],
)
def test_what_cannot_be_switched_is_said(switch, change, sentence, tmp_path):
    text = SPEC.replace("ARCH", "llama").replace("CONFIG", LLAMA) + change
    graph = check(parse(text, Path("spec.yaml"))).require()
    with pytest.raises(AssemblerError, match=sentence):
        export(graph, compile_graph(graph), tmp_path / "out", "fp32", ROWS, switch=[switch])
    assert not (tmp_path / "out").exists()
