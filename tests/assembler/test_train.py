"""Training: what is frozen stays, what learns moves, and a run says what happened."""

import io
import json

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from assembler.batches import Batches, split
from assembler.check import check
from assembler.compile import Assembly, compile_graph
from assembler.errors import AssemblerError
from assembler.runs import Run, load_run
from assembler.spec import override, read
from assembler.train import bits, freeze_table, train
from components.backbones._causal_lm import byte_tokenizer


def test_every_step_is_in_the_metrics_once(unbroken):
    rows = [json.loads(line) for line in unbroken.metrics_path.read_text().splitlines()]
    assert [(row["stage"], row["step"]) for row in rows] == [(s, i) for s in ("align", "tune") for i in range(1, 7)]
    assert all(row["loss"] > 0 for row in rows)
    assert list((unbroken.folder / "tensorboard").iterdir())


def test_the_loss_falls(spec, tmp_path):
    longer = override(override(spec, "stages.align.steps=60"), "stages.align.train=[bridge, talk]")
    run = train(longer, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in run.metrics_path.read_text().splitlines()]
    assert sum(losses[50:60]) < 0.8 * sum(losses[:10])


def test_frozen_weights_do_not_move_and_learning_ones_do(unbroken):
    graph, trained = load_run(unbroken.folder)
    fresh = compile_graph(graph)
    for key, parameter in trained.named_parameters():
        learns = key in trained.of("bridge") + trained.of("tune")
        assert torch.equal(parameter, fresh.get_parameter(key)) != learns, key


def test_a_saved_run_loads_bit_exact(unbroken):
    graph, first = load_run(unbroken.folder)
    _, second = load_run(unbroken.folder)
    batch = Batches(graph)(split(graph)[1][:5])
    with torch.no_grad():
        assert torch.equal(first(**batch)["logits"], second(**batch)["logits"])


def test_the_model_of_the_run_is_the_one_that_was_trained(spec, tmp_path, monkeypatch):
    seen: list[Assembly] = []
    monkeypatch.setattr("assembler.train.compile_graph", lambda graph: seen.append(compile_graph(graph)) or seen[0])
    run = train(spec, tmp_path / "run")
    _, loaded = load_run(run.folder)
    assert all(
        torch.equal(a, b) for a, b in zip(seen[0].state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_the_freeze_table_tells_what_learns_when(spec):
    graph = check(spec)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(freeze_table(graph, compile_graph(graph)))
    lines = {line.split("│")[1].strip(): line for line in console.export_text().splitlines() if line.startswith("│")}
    assert lines["eyes"].count("frozen") == 2
    assert "lr 0.01" in lines["bridge"] and "frozen" not in lines["bridge"]
    assert lines["tune"].count("frozen") == 1


def test_a_frozen_weight_that_moves_stops_the_run(spec, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def stepping(self, *arguments, **knobs):
        out = step(self, *arguments, **knobs)
        assembly[0].get_parameter("nodes.talk.lm.lm_head.weight").data += 0.1
        return out

    assembly: list[Assembly] = []
    monkeypatch.setattr(
        "assembler.train.compile_graph", lambda graph: assembly.append(compile_graph(graph)) or assembly[0]
    )
    monkeypatch.setattr(torch.optim.AdamW, "step", stepping)
    with pytest.raises(AssemblerError, match=r"lm_head\.weight is frozen and moved"):
        train(spec, tmp_path / "run")


def test_a_learning_weight_that_does_not_move_stops_the_run(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *arguments, **knobs: None)
    with pytest.raises(AssemblerError, match="learns and did not move"):
        train(spec, tmp_path / "run")


def test_a_weight_of_which_as_much_goes_up_as_down_has_moved():
    assert bits(torch.tensor([1.25, 1.5])) != bits(torch.tensor([1.5, 1.25]))


@pytest.mark.parametrize("precisions", [("fp32", "bf16"), ("bf16", "fp32")])
def test_every_stage_has_its_own_precision(tmp_path, spec, monkeypatch, precisions):
    for stage, precision in zip(("align", "tune"), precisions, strict=True):
        spec = override(override(spec, f"stages.{stage}.steps=1"), f"stages.{stage}.precision={precision}")
    seen, forward = [], Assembly.forward

    def watched(self, **batch):
        seen.append("bf16" if torch.is_autocast_enabled("cpu") else "fp32")
        return forward(self, **batch)

    monkeypatch.setattr(Assembly, "forward", watched)
    train(spec, tmp_path / "run")
    assert seen == list(precisions)


def test_a_part_that_the_loss_does_not_reach_stops_the_run(tmp_path, spec):
    text = spec.dump().replace("  talk:\n", "  spare: {type: projector.linear, width: 8}\n  talk:\n")
    text = text.replace("bridge -> talk.photo]", "bridge -> talk.photo, eyes -> spare]").replace(
        "[bridge]", "[bridge, spare]"
    )
    spec.path.write_text(text)
    with pytest.raises(AssemblerError, match=r"the loss does not reach nodes\.spare"):
        train(read(spec.path), tmp_path / "run")


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(spec, tmp_path, monkeypatch):
    forward = Assembly.forward
    monkeypatch.setattr(
        Assembly, "forward", lambda self, **batch: {"loss": forward(self, **batch)["loss"] * float("nan")}
    )
    screen = io.StringIO()
    with pytest.raises(AssemblerError, match="the loss is nan at step"):
        train(spec, tmp_path / "run", console=Console(file=screen, force_terminal=True))
    hides, shows = (screen.getvalue().count(code) for code in ("\x1b[?25l", "\x1b[?25h"))
    assert hides == shows > 0  # the bar gives the cursor back


def test_a_run_is_not_overwritten_nor_resumed_with_another_spec(spec, unbroken, tmp_path):
    with pytest.raises(AssemblerError, match="is a run already"):
        train(unbroken.spec(), unbroken.folder)
    with pytest.raises(AssemblerError, match="differs from"):
        train(override(spec, "stages.align.steps=7"), unbroken.folder, resume=True)
    with pytest.raises(AssemblerError, match="nothing to resume"):
        train(spec, tmp_path / "none", resume=True)
    with pytest.raises(AssemblerError, match="not empty and no run"):
        train(spec, tmp_path)


def test_a_spec_without_stages_is_refused(spec):
    with pytest.raises(AssemblerError, match="no `stages`"):
        train(override(spec, "stages=[]"), spec.base / "run")


def test_weights_that_are_not_here_are_fetched_before_the_run_begins(spec, tmp_path, monkeypatch):
    text = spec.dump()
    start, end = text.index("    arch: llama"), text.index("    prompt:")
    spec.path.write_text(text[:start] + "    weights: hf:org/tiny\n" + text[end:])
    hub = tmp_path / "hub" / "org" / "tiny"

    def download(source):
        knobs = dict(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
        LlamaForCausalLM(LlamaConfig(**knobs)).save_pretrained(hub)
        byte_tokenizer().save_pretrained(hub)
        return hub

    monkeypatch.setenv("ASSEMBLER_HUB", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("assembler.weights._fetch_hf", download)
    assert check(read(spec.path)).values["bridge"]["width"] is None
    run = train(read(spec.path), tmp_path / "run")
    assert run.learned("tune").is_file()

    state = hub / "model.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(AssemblerError, match=r"the weights of hf:org/tiny are no longer those"):
        load_run(run.folder)
    with pytest.raises(AssemblerError, match=r"the weights of hf:org/tiny are no longer those"):
        train(run.spec(), run.folder, resume=True)


def test_two_processes_do_not_train_into_one_folder(spec, tmp_path):
    with Run(tmp_path / "run").lock(), pytest.raises(AssemblerError, match="is in use by another process"):
        train(spec, tmp_path / "run")
    train(spec, tmp_path / "run")


def test_a_run_killed_before_it_has_its_spec_is_begun_again(spec, tmp_path):
    (tmp_path / "run").mkdir()
    for name in (".lock", "run.json", ".run.json.123", ".spec.yaml.123"):
        (tmp_path / "run" / name).write_text("half")
    assert train(spec, tmp_path / "run").learned("tune").is_file()


@pytest.mark.parametrize("text", ["", "[]", '{"base": 5, "weights": {}}', '{"weights": {}}'])
def test_a_damaged_record_of_a_run_is_refused_with_a_sentence(text, unbroken, tmp_path):
    (tmp_path / "spec.yaml").write_bytes(unbroken.spec_path.read_bytes())
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(AssemblerError, match=r"run\.json cannot be read"):
        load_run(tmp_path)
