"""Whisper in the layouts of CTranslate2 and openai-whisper. The small model.bin files here were written by CTranslate2
4.8.5 from a model whose every tensor is a sine, in three of the types that it keeps weights in."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperConfig, WhisperModel

from assembler.check import check
from assembler.compile import compile_graph
from assembler.ctranslate2 import read_index
from assembler.errors import AssemblerError
from assembler.spec import parse
from components.encoders._whisper_weights import OPENAI, whisper_config, whisper_state

FILES = Path(__file__).parent / "ctranslate2"
SIZES = {
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_mel_bins": 80,
    "max_source_positions": 50,
    "max_target_positions": 4,
}
SPEC = """
assembler: 1
nodes: {s: {type: input.audio, seconds: 1}, e: {type: encoder.whisper, weights: "file:AT"}}
edges: [s -> e]
"""


def waves(model: WhisperModel) -> dict[str, torch.Tensor]:
    """Put sines of different frequencies into a model, a tensor each."""
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters(), 1):
            parameter.copy_((torch.arange(parameter.numel()) * 0.1 * index).sin().view_as(parameter) / 10)
    return model.state_dict()


@pytest.fixture(scope="module")
def original() -> dict[str, torch.Tensor]:
    return waves(WhisperModel(WhisperConfig(**SIZES, vocab_size=6, pad_token_id=0)))


@pytest.mark.parametrize(("kept", "step"), [("int8_float16", 0.1 / 127), ("bfloat16", 2**-11), ("int16", 2e-4)])
def test_a_file_of_ctranslate2_holds_the_model_to_within_its_rounding(kept, step, original):
    state = whisper_state(FILES / kept)
    assert set(state) == set(original)
    assert max((state[key] - original[key]).abs().max() for key in state) <= step


def test_its_sizes_are_read_off_its_shapes():
    config = whisper_config(FILES / "int8_float16")
    assert {key: config[key] for key in SIZES} == SIZES and config["vocab_size"] == 6


def openai_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors as openai-whisper names them, which the table brings back."""
    back = {
        ".self_attn_layer_norm.": ".attn_ln.", ".encoder_attn_layer_norm.": ".cross_attn_ln.", ".layers.": ".blocks.",
        ".final_layer_norm.": ".mlp_ln.", ".self_attn.": ".attn.", ".encoder_attn.": ".cross_attn.", ".fc1.": ".mlp.0.",
        ".q_proj.": ".query.", ".k_proj.": ".key.", ".v_proj.": ".value.", ".out_proj.": ".out.", ".fc2.": ".mlp.2.",
        "encoder.layer_norm.": "encoder.ln_post.", "decoder.layer_norm.": "decoder.ln.", ".embed_tokens.":
        ".token_embedding.", ".embed_positions.weight": ".positional_embedding",
    }  # fmt: skip
    found = {}
    for key, tensor in state.items():
        for theirs, ours in back.items():
            key = key.replace(theirs, ours)
        found[key] = tensor
    return found


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, original) -> Path:
    path = tmp_path_factory.mktemp("openai") / "tiny.pt"
    dims = {"n_mels": 80, "n_vocab": 6, "n_audio_ctx": 50, "n_audio_state": 8, "n_audio_head": 2, "n_audio_layer": 1}
    dims |= {"n_text_ctx": 4, "n_text_state": 8, "n_text_head": 2, "n_text_layer": 1}
    torch.save({"dims": dims, "model_state_dict": openai_names(original)}, path)
    return path


def test_a_checkpoint_of_openai_whisper_has_the_same_tensors(checkpoint, original):
    state = whisper_state(checkpoint)
    assert set(state) == set(original) and all(torch.equal(state[key], original[key]) for key in state)
    assert whisper_config(checkpoint)["encoder_ffn_dim"] == 32 and len(OPENAI) == 15


@pytest.mark.parametrize("kept", ["int8_float16", "bfloat16"])
def test_an_encoder_hears_the_same_with_either_layout(kept, original, tmp_path):
    model = WhisperModel(WhisperConfig(**SIZES, vocab_size=6, pad_token_id=0))
    model.load_state_dict(whisper_state(FILES / kept))
    model.save_pretrained(tmp_path)
    wave = torch.randn(2, 16_000)
    with torch.no_grad():
        first, second = (tower(at)(wave) for at in (FILES / kept, tmp_path))
    assert first.shape == (2, 50, 8) and torch.equal(first, second)


def tower(at: Path) -> torch.nn.Module:
    return compile_graph(check(parse(SPEC.replace("AT", str(at)), Path("spec.yaml").resolve()))).nodes["e"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_sentence_that_names_it(data, tmp_path_factory):
    content = bytearray((FILES / "int8_float16" / "model.bin").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "model.bin").write_bytes(content[: data.draw(st.sampled_from([3, 40, 4000, len(content)]))])
    try:
        index = read_index(folder)
        for name in index.variables:
            index.raw(name)
    except AssemblerError as error:
        assert "model.bin" in str(error)


def test_a_cut_file_is_refused_in_the_check(tmp_path):
    content = (FILES / "int16" / "model.bin").read_bytes()
    (tmp_path / "model.bin").write_bytes(content[:5000])
    (problem,) = check(parse(SPEC.replace("AT", str(tmp_path)), tmp_path / "spec.yaml")).problems
    assert problem.node == "e" and "model.bin is damaged or cut off" in problem.message


def test_an_archive_with_code_in_it_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"dims": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(AssemblerError, match=r"bomb\.pt holds more than tensors"):
        whisper_config(tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()
