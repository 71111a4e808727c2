"""encoder.hf_speech: transformers' own models, and padding that no real token notices."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCTC, Wav2Vec2FeatureExtractor

from assembler.check import check
from assembler.compile import compile_graph
from assembler.graph import Graph
from assembler.ragged import Ragged
from assembler.spec import parse
from components.encoders._hf_speech import SpeechTower, _heard
from components.encoders._sound import tokens_of
from components.encoders.hf_speech import HfSpeech

EXAMPLES = {tree["nodes"]["part"]["config"]["model_type"]: tree for tree, _ in HfSpeech.examples()}
SIZES = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 6)), min_size=1, max_size=4)
every_model = pytest.mark.parametrize("model", list(EXAMPLES))


def graph_of(seconds: float, base: Path, **knobs) -> Graph:
    nodes = {"s": {"type": "input.audio", "seconds": seconds}, "e": {"type": "encoder.hf_speech", **knobs}}
    return check(parse(json.dumps({"assembler": 1, "nodes": nodes, "edges": ["s -> e"]}), base / "spec.yaml"))


def tower_of(model: str, normalise: bool = True) -> SpeechTower:
    torch.manual_seed(0)
    return SpeechTower(EXAMPLES[model]["nodes"]["part"]["config"], None, False, False, normalise).eval()


@every_model
def test_a_bare_sound_gives_what_transformers_gives(model, tmp_path):
    torch.manual_seed(0)
    peer = AutoModelForCTC.from_config(
        AutoConfig.for_model(**EXAMPLES[model]["nodes"]["part"]["config"], vocab_size=5, pad_token_id=0)
    ).eval()
    peer.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path)
    graph = graph_of(0.5, tmp_path, weights=f"file:{tmp_path}")
    tower = compile_graph(graph).nodes["e"]
    sound = torch.randn(2, 8000) * 3 + 1
    inputs = Wav2Vec2FeatureExtractor(do_normalize=True)(list(sound.numpy()), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        theirs = peer.base_model(inputs.input_values).last_hidden_state
        ours = tower(sound)
    assert theirs.shape[1] == graph.values["e"]["tokens"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@every_model
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_padding_changes_no_real_token_and_counts_as_none(model, lengths, seed):
    torch.manual_seed(seed)
    tower, size = tower_of(model), 3200
    sounds = torch.randn(len(lengths), size) + 0.5
    mask = torch.arange(size) < torch.tensor(lengths).unsqueeze(1)
    with torch.no_grad():
        values, real = tower(Ragged(sounds, mask))
        for row, length in enumerate(lengths):
            count = tokens_of(length, tower.model.config.conv_kernel, tower.model.config.conv_stride)
            assert real[row].sum() == count
            if count:
                bare = tower(sounds[row : row + 1, :length])[0]
                torch.testing.assert_close(values[row][real[row]], bare, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(values[real]).all()


@settings(max_examples=50, deadline=None)
@given(stack=SIZES, samples=st.integers(1, 300), length=st.integers(0, 300))
def test_tokens_are_counted_as_convolutions_count_them(stack, samples, length):
    kernels, strides = zip(*stack, strict=True)
    x = torch.zeros(1, 1, samples)
    try:
        for kernel, stride in stack:
            x = torch.nn.functional.conv1d(x, torch.ones(1, 1, kernel), stride=stride)
        count = x.shape[-1]
    except RuntimeError:  # the kernel is longer than what is left
        count = 0
    assert tokens_of(samples, kernels, strides) == count
    if count:
        heard = _heard(torch.arange(samples)[None] < length, list(kernels), list(strides))
        assert heard.sum() == tokens_of(min(length, samples), kernels, strides)


def test_a_sound_shorter_than_a_token_and_another_model_are_refused():
    def problem(seconds: float, model: str) -> str:
        config = {**EXAMPLES["hubert"]["nodes"]["part"]["config"], "model_type": model}
        (found,) = graph_of(seconds, Path.cwd(), config=config).problems
        return found.message

    assert "make `seconds` more" in problem(0.001, "hubert")
    assert "it is one of wav2vec2, hubert, wavlm, data2vec-audio" in problem(1, "bert")
