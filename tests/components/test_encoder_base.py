"""What encoders share: layers, the learned mix, and weights that fit or are refused."""

import pytest
import torch
from transformers import WhisperConfig, WhisperForAudioClassification, WhisperForConditionalGeneration

from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.spec import parse
from components.encoders._states import LayerMix, place_exactly

SPEC = """
assembler: 1
nodes:
  sound: {type: input.audio, seconds: 1}
  ears: {type: encoder.whisper, weights: "file:WEIGHTS", freeze: true, output: pooled, KNOBS}
  name: {type: head.classifier, classes: 3}
edges: [sound -> ears, ears -> name]
data: {type: dataset.jsonl, options: {path: rows.jsonl, columns: {sound: text, label: label}}}
stages: [{name: mix, train: [ears.mix, name], lr: 0.1, batch: 2, steps: 2}]
"""


@pytest.fixture(scope="module")
def whisper(tmp_path_factory) -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
    config = WhisperConfig(**sizes, decoder_layers=1, decoder_attention_heads=2, vocab_size=50, pad_token_id=0)
    whole = WhisperForConditionalGeneration(config).eval()
    whole.folder = tmp_path_factory.mktemp("whisper")
    whole.save_pretrained(whole.folder)
    return whole


def assembled(whisper, knobs: str):
    graph = check(
        parse(SPEC.replace("WEIGHTS", str(whisper.folder)).replace("KNOBS", knobs), whisper.folder / "s.yaml")
    )
    return graph, [problem.message for problem in graph.problems if "data" not in problem.message]


@pytest.fixture(scope="module")
def mixed(whisper):
    graph, problems = assembled(whisper, "mix: true")
    assert problems == []
    graph.problems.clear()
    return compile_graph(graph)


def test_the_mix_is_trained_while_its_encoder_stays_as_it_is(mixed):
    mixed.train_only(["ears.mix"])
    learning = {key for key, p in mixed.named_parameters() if p.requires_grad}
    assert learning == {"nodes.ears.mix.weights", "nodes.ears.mix.gamma"}
    assert not mixed.train().nodes["ears"].training


def test_the_mix_is_that_of_transformers_weighted_sum(whisper, mixed):
    peer = WhisperForAudioClassification(WhisperConfig(**{**whisper.config.to_dict(), "use_weighted_layer_sum": True}))
    peer.encoder.load_state_dict(whisper.model.encoder.state_dict())
    tower, wave = mixed.nodes["ears"], torch.randn(1, 30 * 16_000) / 10
    weights = torch.randn(4)
    with torch.no_grad():
        tower.mix.weights.copy_(weights)
        peer.layer_weights.copy_(weights)
        peer.projector, peer.classifier = torch.nn.Identity(), torch.nn.Identity()
        torch.testing.assert_close(tower(wave), peer(tower.mel(wave)).logits, rtol=1e-4, atol=1e-5)
        tower.mix.weights.zero_()


@pytest.mark.parametrize("layer", [0, 2, -2])
def test_a_layer_is_what_that_block_puts_out(whisper, layer):
    graph, problems = assembled(whisper, f"layer: {layer}")
    assert problems == ["stages.mix: there is no node or adapter ears.mix; did you mean ears?"]
    graph.problems.clear()
    tower, wave, seen = compile_graph(graph).nodes["ears"], torch.randn(2, 16_000), []
    tower.encoder.layers[layer].register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        pooled = tower(wave)
    torch.testing.assert_close(pooled, seen[0].mean(1))


def test_a_layer_that_is_not_there_and_a_layer_beside_a_mix_are_refused(whisper):
    assert "layers 0 to 2, and `layer` is 3" in assembled(whisper, "layer: 3")[1][0]
    assert "give one of them" in " ".join(assembled(whisper, "layer: 1, mix: true")[1])


def test_a_fresh_mix_is_the_mean_of_the_states():
    states = [torch.randn(2, 3, 4) for _ in range(5)]
    torch.testing.assert_close(LayerMix(5)(states), torch.stack(states).mean(0))


def test_tensors_of_another_shape_are_refused_by_name():
    model = torch.nn.Linear(2, 3)
    state = {"old.weight": torch.zeros(3, 2), "old.bias": torch.zeros(4), "old.head": torch.zeros(1)}
    with pytest.raises(AssemblerError, match=r"ears: old\.bias is \[4\] and the config makes it \[3\]"):
        place_exactly(model, state, ("", "old."), "ears")
