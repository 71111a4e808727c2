"""Whisper's encoder from the waveform on is transformers' own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.spec import parse
from components.encoders._whisper import LogMel
from components.encoders.whisper import WhisperEncoder

TINY = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 80,
    "max_source_positions": 150,
}
SPEC = """
assembler: 1
nodes:
  sound: {type: input.audio, seconds: SECONDS}
  ears: {type: encoder.whisper, weights: WEIGHTS}
edges: [sound -> ears]
"""


def sound(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(0).normal(0, 0.05, len(time))
    return (np.sin(2 * np.pi * 440 * time) + noise).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Whisper saved by transformers."""
    torch.manual_seed(0)
    config = WhisperConfig(**TINY, decoder_layers=1, decoder_attention_heads=4, vocab_size=100, pad_token_id=0)
    where = tmp_path_factory.mktemp("whisper")
    WhisperForConditionalGeneration(config).save_pretrained(where)
    return where


def spec(seconds: float, weights: str, base: Path):
    return parse(SPEC.replace("SECONDS", str(seconds)).replace("WEIGHTS", weights), base / "spec.yaml")


@pytest.mark.parametrize("mels", [80, 128])
def test_the_log_mel_is_that_of_transformers(mels):
    wave = sound(30)
    theirs = WhisperFeatureExtractor(feature_size=mels)(wave, sampling_rate=16_000, return_tensors="np").input_features
    ours = LogMel(mels)(torch.from_numpy(wave)[None])
    np.testing.assert_allclose(ours.numpy(), theirs, atol=5e-4)  # float32 powers near the floor of the log


def test_the_tokens_are_those_of_transformers_encoder(folder):
    graph = check(spec(3, f"file:{folder}", folder))
    assert str(graph.values["ears"]) == "tokens [batch, 150, 32] ragged"
    tower = compile_graph(graph).nodes["ears"]
    whole = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    wave = torch.from_numpy(sound(3))[None]
    with torch.no_grad():
        theirs = whole.model.encoder(tower.mel(wave)).last_hidden_state
        torch.testing.assert_close(tower(wave), theirs, atol=1e-5, rtol=1e-5)


def test_a_short_sound_takes_as_many_tokens_as_its_shape_says(folder):
    graph = check(spec(1, f"file:{folder}", folder))
    out = compile_graph(graph).nodes["ears"](torch.from_numpy(sound(1))[None])
    assert out.shape == (1, graph.values["ears"]["tokens"], graph.values["ears"]["width"])


@pytest.mark.parametrize(("seconds", "sentence"), [(4, "at most 3 s"), (0.51, "whole number of tokens")])
def test_a_length_it_cannot_hear_is_refused(folder, seconds, sentence):
    (problem,) = check(spec(seconds, f"file:{folder}", folder)).problems
    assert problem.node == "ears" and sentence in problem.message


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_its_name(folder):
    part = WhisperEncoder(config=TINY)
    graph = check(spec(1, f"file:{folder}", folder))
    module = part.build({}, graph.values["ears"], folder)
    state = {f"model.encoder.{key}": x for key, x in module.encoder.state_dict().items()}
    del state["model.encoder.conv2.bias"]
    save_file(state, folder / "broken.safetensors")
    with pytest.raises(AssemblerError, match=r"conv2\.bias"):
        part.fill(module, folder / "broken.safetensors")
