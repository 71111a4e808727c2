"""encoder.ast: transformers' filterbank and model, from the waveform on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from assembler.check import check
from assembler.compile import compile_graph
from assembler.graph import Graph
from assembler.ragged import Ragged
from assembler.readers import open_sound
from assembler.spec import parse
from components.encoders._ast import FilterBank

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GOODBYE = open_sound(Path(__file__).parent / "sounds" / "goodbye.wav").samples


def graph_of(base: Path, seconds: float, **knobs) -> Graph:
    nodes = {"s": {"type": "input.audio", "seconds": seconds}, "e": {"type": "encoder.ast", **knobs}}
    return check(parse(json.dumps({"assembler": 1, "nodes": nodes, "edges": ["s -> e"]}), base / "spec.yaml"))


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """A small AST with a head, and its extractor, saved as transformers saves them."""
    torch.manual_seed(0)
    model = ASTForAudioClassification(ASTConfig(**SIZES, max_length=100, num_mel_bins=64)).eval()
    model.folder = tmp_path_factory.mktemp("ast")
    model.save_pretrained(model.folder)
    model.extractor = ASTFeatureExtractor(num_mel_bins=64, max_length=100, mean=-3.0, std=2.0)
    model.extractor.save_pretrained(model.folder)
    return model


def test_the_filterbank_is_that_of_transformers():
    wave = np.concatenate([GOODBYE, np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)])
    extractor = ASTFeatureExtractor(do_normalize=False, max_length=(len(wave) - 400) // 160 + 1)
    theirs = extractor(wave, sampling_rate=16_000, return_tensors="np").input_values[0]
    np.testing.assert_allclose(FilterBank(128)(torch.from_numpy(wave)[None])[0].numpy(), theirs, atol=2e-3)


@pytest.mark.parametrize("samples", [400, 6000, 12_800])
def test_a_sound_of_any_length_gives_what_transformers_gives(peer, samples):
    graph = graph_of(peer.folder, 0.8, weights=f"file:{peer.folder}", prefix=True)
    tower, wave = compile_graph(graph).nodes["e"], torch.zeros(1, 12_800)
    wave[0, :samples] = torch.from_numpy(np.resize(GOODBYE, samples))
    mask = torch.arange(12_800)[None] < samples
    inputs = peer.extractor(wave[0, :samples].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        tokens = tower(Ragged(wave, mask))
        theirs = peer.audio_spectrogram_transformer(inputs)
    torch.testing.assert_close(tokens.values, theirs.last_hidden_state, rtol=1e-3, atol=1e-3)
    frames = (samples - 400) // 160 + 1
    starts = min(-(-frames // 10), (100 - 16) // 10 + 1)
    assert tokens.mask.sum() == 2 + starts * ((64 - 16) // 10 + 1)


def test_pooled_is_what_the_models_own_head_reads(peer):
    graph = graph_of(peer.folder, 0.8, weights=f"file:{peer.folder}", output="pooled")
    tower, wave = compile_graph(graph).nodes["e"], torch.from_numpy(np.resize(GOODBYE, 12_800))[None]
    inputs = peer.extractor(wave[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        theirs = peer.audio_spectrogram_transformer(inputs).pooler_output
        torch.testing.assert_close(tower(wave), theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seconds", [0.02, 1.1])
def test_a_length_it_has_no_positions_for_is_refused(peer, seconds):
    (problem,) = graph_of(peer.folder, seconds, weights=f"file:{peer.folder}").problems
    assert "this model hears 0.025 to 1.015 s" in problem.message
