"""The decoder that is written directly: torch's logits and tokens for every family, its weights once on disk."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from assembler.bundle.architecture import architecture_of
from assembler.bundle.decoder import DecoderWriter, decoder_writer
from assembler.bundle.decoding import DTYPES, InPlace
from assembler.bundle.linears import Blocks, nearest, widened
from assembler.bundle.smoothing import smoothed
from assembler.peaks import peaks_of

SIZES = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
FAMILIES = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3": ("llama", {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 32, "rope_theta": 5e5}}),
    "mistral, sliding": ("mistral", {"sliding_window": 4}),
    "qwen2": ("qwen2", {}),
    "qwen2, some sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma 2": ("gemma2", {"sliding_window": 4, "query_pre_attn_scalar": 40, "final_logit_softcapping": 3.0}),
    "gemma 3": ("gemma3_text", {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64}),
}


def lm_of(name: str) -> torch.nn.Module:
    arch, more = FAMILIES[name]
    torch.manual_seed(0)
    sizes = {"vocab_size": 96} if arch == "gpt2" else SIZES
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(arch, **sizes, **more)).eval()
    for key, p in lm.named_parameters():  # norms and biases start at one and zero, where a mistake would not be seen
        if p.dim() == 1:
            torch.nn.init.normal_(p, 1.0 if "norm" in key else 0.0, 0.3)
    return lm


def written(lm, folder, precision="fp32", carried=dict) -> InPlace:
    writer = decoder_writer(lm, precision, carried)
    assert isinstance(writer, DecoderWriter), writer
    writer.write(folder)
    options = {"providers": ["CPUExecutionProvider"]}
    return InPlace(onnxruntime.InferenceSession(str(folder / "decoder.onnx"), **options), "cpu")


def torch_logits(lm, ids: list[int]) -> np.ndarray:
    with torch.no_grad():
        return lm(torch.tensor([ids])).logits[0, -1].numpy()


def embedded(lm, ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return lm.get_input_embeddings()(torch.from_numpy(ids)).numpy()


def of_nan(shape: tuple[int, ...], kind: str, device: str) -> onnxruntime.OrtValue:
    """Memory as bad as there is: whoever reads it before it is written has no logits."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.full(shape, np.nan, DTYPES[kind]), device)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_ragged_batch_is_decoded_as_torch_does_row_by_row_whatever_memory_held(name, tmp_path, monkeypatch):
    monkeypatch.setattr("assembler.bundle.decoding.unwritten", of_nan)
    lm = lm_of(name)
    decoding = written(lm, tmp_path)
    rows = [[5, 7, 9, 11, 13, 2, 4], [3, 1, 8], [6]]
    padded = np.zeros((3, 7), np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    logits = decoding.start(embedded(lm, padded), np.array([7, 3, 1]), room=3)
    for _ in range(3):
        wanted = np.stack([torch_logits(lm, row) for row in rows])
        np.testing.assert_allclose(logits, wanted, atol=2e-4)
        tokens = logits.argmax(-1)
        rows = [[*row, int(token)] for row, token in zip(rows, tokens, strict=True)]
        logits = decoding.step(embedded(lm, tokens[:, None]))


def test_a_chunk_after_a_prompt_goes_on_in_the_same_cache(tmp_path):
    lm = lm_of("llama")
    decoding = written(lm, tmp_path)
    table = lm.get_input_embeddings().weight.detach().numpy()
    decoding.start(table[[[5, 7, 9]]], np.array([3]), room=4)
    decoding.lengths, decoding.total = decoding.lengths + 3, decoding.total + 3
    got = decoding._run(table[[[1, 2, 3]]])
    np.testing.assert_allclose(got[0], torch_logits(lm, [5, 7, 9, 1, 2, 3]), atol=2e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_long_prompt_in_chunks_is_the_same_prompt(name, tmp_path, monkeypatch):
    lm = lm_of(name)
    decoding, ids = written(lm, tmp_path), np.array([[5, 7, 9, 11, 13, 2, 4, 8], [3, 1, 8, 6, 9, 0, 0, 0]])
    lengths = np.array([8, 5])
    whole = [decoding.start(embedded(lm, ids), lengths, 1), decoding.step(embedded(lm, np.array([[2], [4]])))]
    monkeypatch.setattr("assembler.bundle.decoding.CHUNK", 3)
    cut = [decoding.start(embedded(lm, ids), lengths, 1), decoding.step(embedded(lm, np.array([[2], [4]])))]
    np.testing.assert_allclose(cut, whole, atol=1e-5)


@pytest.mark.parametrize("name", ["llama, biases", "qwen3", "gpt2"])
def test_smoothing_changes_no_answer_and_loses_less_to_rounding(name, tmp_path):
    lm, ids = lm_of(name), np.array([[5, 7, 9, 11, 13, 2]])
    with torch.no_grad():  # one channel of every stream far above the others, as large models have it
        for key, p in lm.named_parameters():
            if key.endswith(("layernorm.weight", "ln_1.weight", "ln_2.weight")):
                p[3] += 60
    with peaks_of(SimpleNamespace(lm=lm)) as peaks:
        exact = torch_logits(lm, ids[0].tolist())
    plain = decoder_writer(lm, "fp32", dict)
    weights = smoothed(plain.shape, plain.weights, peaks)
    far = []
    for folder, precision, given, known in [
        ("same", "fp32", weights, None),
        ("rough", "int8_dynamic", plain.weights, None),
        ("smooth", "int8_dynamic", plain.weights, peaks),
    ]:
        (tmp_path / folder).mkdir()
        DecoderWriter(plain.shape, given, plain.rotary, precision, {}, (), known).write(tmp_path / folder)
        session = onnxruntime.InferenceSession(str(tmp_path / folder / "decoder.onnx"))
        logits = InPlace(session, "cpu").start(embedded(lm, ids), np.array([6]), 0)[0]
        far.append(np.abs(logits - exact).max())
    assert far[0] < 5e-4 * np.abs(exact).max() and far[2] < far[1]


@pytest.mark.parametrize(("precision", "cuts"), [("fp32", 0), ("int8_dynamic", 0), ("int8", 2)])
def test_only_products_in_blocks_are_made_as_one_and_cut(precision, cuts, tmp_path):
    written(lm_of("llama"), tmp_path, precision)
    nodes = onnx.load(tmp_path / "decoder.onnx", load_external_data=False).graph.node
    assert sum(node.op_type == "Split" for node in nodes) == cuts  # of gate and up, a layer


def test_the_embedding_reads_tokens_and_rows_of_features_alike(tmp_path):
    lm = lm_of("llama")
    written(lm, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "embedding.onnx"), providers=["CPUExecutionProvider"])
    table, features = lm.get_input_embeddings().weight.detach().numpy(), np.random.rand(3, 64).astype(np.float32)
    out = session.run(None, {"input_ids": np.array([[1, 96, 5], [98, 2, 97]]), "features": features})[0]
    wanted = np.stack([[table[1], features[0], table[5]], [features[2], table[2], features[1]]])
    assert np.array_equal(out, wanted)
    none = session.run(None, {"input_ids": np.array([[1, 2]]), "features": features[:0]})[0]
    assert np.array_equal(none[0], table[[1, 2]])


def test_the_embedding_scales_tokens_where_the_model_does_and_features_never(tmp_path):
    lm = lm_of("gemma")
    written(lm, tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "embedding.onnx"), providers=["CPUExecutionProvider"])
    out = session.run(None, {"input_ids": np.array([[7, 96]]), "features": np.ones((1, 64), np.float32)})[0][0]
    np.testing.assert_allclose(out, [embedded(lm, np.array([7]))[0], np.ones(64)], rtol=1e-6)


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_is_on_disk_once(tied, tmp_path):
    lm = lm_of("llama, tied" if tied else "llama")
    written(lm, tmp_path)
    large = sum(p.numel() * 4 for p in lm.parameters() if p.numel() * 4 >= 1024)
    tables = 2 * 64 * 8 * 4  # cosines and sines
    size = (tmp_path / "weights.data").stat().st_size
    assert large <= size <= large + tables + 4096 * 20


@pytest.mark.parametrize(("precision", "drift"), [("int8", 0.02), ("int8_dynamic", 0.05), ("int4", 0.2)])
def test_fewer_bits_stay_near(precision, drift, tmp_path):
    lm = lm_of("llama")
    table = lm.get_input_embeddings().weight.detach().numpy()
    logits = written(lm, tmp_path, precision).start(table[[[5, 7, 9, 11]]], np.array([4]), room=0)[0]
    exact = torch_logits(lm, [5, 7, 9, 11])
    assert 0 < np.abs(logits - exact).max() < drift * np.abs(exact).max()


def test_matrices_of_a_4_bit_source_are_carried_over_as_they_are(tmp_path):
    lm, generator = lm_of("llama"), np.random.default_rng(0)
    blocks = {}
    for key, p in lm.named_parameters():
        if "proj" in key:
            shape = (p.shape[0], p.shape[1] // 32)
            scale, offset = generator.uniform(0.001, 0.01, shape), generator.uniform(-0.05, -0.01, shape)
            q = generator.integers(0, 16, (*shape, 32), np.uint8)
            blocks[key] = Blocks(4, q, scale.astype(np.float32), offset.astype(np.float32))
            p.data = torch.from_numpy(blocks[key].dense())
    changed = {"model.layers.1.self_attn.o_proj.weight", "model.layers.0.self_attn.q_proj.weight"}
    for name in changed:
        dict(lm.named_parameters())[name].data += 0.01  # trained on: no longer what the file holds
    writer = decoder_writer(lm, "int4", lambda: blocks)
    assert isinstance(writer, DecoderWriter) and writer.taken == len(blocks) - len(changed)
    assert {name for name in blocks if writer.carried[name] is not blocks[name]} == changed
    table = lm.get_input_embeddings().weight.detach().numpy()
    logits = written(lm, tmp_path, "int4", lambda: blocks).start(table[[[5, 7, 9]]], np.array([3]), room=0)[0]
    exact = torch_logits(lm, [5, 7, 9])
    assert np.abs(logits - exact).max() < 0.03 * np.abs(exact).max()


@pytest.mark.parametrize("bits", [4, 8])
def test_the_nearest_integer_is_at_most_half_a_step_away(bits):
    weight = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    blocks = nearest(weight, bits)
    off = np.abs(blocks.dense() - weight).reshape(6, 2, 32).max(-1)
    assert (off <= 0.5001 * blocks.scale).all() and blocks.q.max() < 1 << bits
    assert np.abs(widened(blocks).dense() - blocks.dense()).max() < 2e-5


@pytest.mark.parametrize(
    ("arch", "more", "reason"),
    [
        ("olmo2", {}, "olmo2 is none of"),
        ("gpt2", {"activation_function": "relu"}, "its activation is relu"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "not the plain one"),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu"),
        ("llama", {"head_dim": 24}, "multiple of 16"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "kind dynamic"),
    ],
)
def test_what_is_not_written_says_why(arch, more, reason):
    sizes = {"n_embd": 32, "n_head": 2, "n_layer": 1, "vocab_size": 96} if arch == "gpt2" else SIZES
    said = decoder_writer(
        AutoModelForCausalLM.from_config(AutoConfig.for_model(arch, **{**sizes, **more})), "fp32", dict
    )
    assert isinstance(said, str) and reason in said


def test_an_adapter_that_was_not_merged_is_not_written_over():
    lm = lm_of("llama")
    lm.model.layers[0].mlp.extra = torch.nn.Linear(4, 4)
    said = decoder_writer(lm, "fp32", dict)
    assert isinstance(said, str) and "one weight too many" in said


def test_an_architecture_is_told_from_its_config():
    shape = architecture_of(lm_of("qwen3").config)
    assert shape.qk_norm and shape.query == 64 and shape.key == 32 and shape.window is None
