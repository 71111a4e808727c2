"""The ONNX bundle answers as the torch model does: graphs one by one, then a whole folder through its runtime."""

import contextlib
import json
import random
import re
import shutil
import subprocess
import sys
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from assembler.bundle.graphs import ExportRefused, export_decoder, export_embedding, export_graph, quantize
from assembler.bundle.manifest import ImageProcessor, Input, Manifest, PromptPart, Slot, write_manifest
from assembler.bundle.parity import compare
from assembler.bundle.processor import open_image, preprocess
from assembler.bundle.runtime import Bundle
from assembler.errors import AssemblerError
from assembler.files import file_hash

VOCAB = 97
TINY = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHALLOW = {**TINY, "num_hidden_layers": 1}
LMS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**TINY)),
    "llama_tied": lambda: LlamaForCausalLM(LlamaConfig(**SHALLOW, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHALLOW)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SHALLOW, head_dim=16)),
    "gemma2_sliding": lambda: Gemma2ForCausalLM(Gemma2Config(**TINY, head_dim=16, sliding_window=4)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2)
    ),
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    lm = LMS[name]().eval()
    with torch.no_grad():
        for parameter in lm.parameters():  # larger weights, so that greedy choices are far from ties
            if parameter.dim() > 1:
                parameter.mul_(4)
    return lm


def session(path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An LM's name -> (torch LM, the file of its graph), which is traced once."""

    @cache
    def made(name: str):
        lm, path = build(name), tmp_path_factory.mktemp(name) / "decoder.onnx"
        export_decoder(lm, path)
        return lm, path

    return made


@pytest.fixture(scope="module", params=list(LMS))
def decoder(request, exported):
    """(torch LM, session of its graph)."""
    lm, path = exported(request.param)
    return lm, session(path)


def padded_mask(lengths: list[int]) -> torch.Tensor:
    longest = max(lengths)
    return torch.tensor([[0] * (longest - n) + [1] * n for n in lengths])


def step(graph, embeds, mask, past):
    """One run of the decoder graph; `past` is None at prefill."""
    names = [x for x in graph.get_inputs() if x.name.startswith("past")]
    batch, new = embeds.shape[:2]
    if past is None:
        past = [np.zeros((batch, x.shape[1], 0, x.shape[3]), np.float32) for x in names]
    feed = {x.name: value for x, value in zip(names, past, strict=True)}
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
    feed |= {"inputs_embeds": embeds.numpy(), "attention_mask": mask.numpy(), "position_ids": positions.numpy()}
    logits, *present = graph.run(None, feed)
    return logits, present


def torch_logits(lm, embeds, mask) -> torch.Tensor:
    """The whole sequence without a cache: what the graph must agree with, however it is cut into steps."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return lm(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, -1]


@pytest.mark.parametrize("lengths", [[1], [7], [7, 7, 7], [7, 3, 1], [2, 9]], ids=str)
@torch.no_grad()
def test_decoder_graph_gives_torch_logits_at_prefill_chunk_and_decode(decoder, lengths):
    lm, graph = decoder
    torch.manual_seed(len(lengths))
    batch, prompt = len(lengths), max(lengths)
    embeds = lm.get_input_embeddings()(torch.randint(0, VOCAB, (batch, prompt + 5)))
    mask, past, seen = padded_mask(lengths), None, 0
    for new in (prompt, 3, 1, 1):  # prefill, a chunk, two single tokens
        if seen:
            mask = torch.cat([mask, torch.ones(batch, new, dtype=torch.long)], dim=1)
        logits, past = step(graph, embeds[:, seen : seen + new], mask, past)
        seen += new
        row = compare("decoder", torch_logits(lm, embeds[:, :seen], mask), logits)
        assert row["ok"], row
        assert past[0].shape[2] == seen


@torch.no_grad()
def test_embedding_graph_merges_no_and_several_rows(tmp_path):
    torch.manual_seed(0)
    embed = nn.Embedding(11, 8)
    export_embedding(embed, tmp_path / "embedding.onnx")
    graph = session(tmp_path / "embedding.onnx")
    plain = np.array([[3, 0, 10]])
    out = graph.run(None, {"input_ids": plain, "features": np.zeros((0, 8), np.float32)})[0]
    np.testing.assert_array_equal(out, embed(torch.from_numpy(plain)).numpy())

    features = torch.randn(5, 8)
    ids = torch.tensor([[1, 11, 12, 2], [13, 14, 15, 0], [4, 4, 11, 10]])
    out = graph.run(None, {"input_ids": ids.numpy(), "features": features.numpy()})[0]
    expected = torch.cat([embed.weight, features])[ids]
    np.testing.assert_array_equal(out, expected.numpy())


@torch.no_grad()
def test_embedding_graph_keeps_the_scale_of_the_module(tmp_path):
    lm = build("gemma")
    export_embedding(lm.get_input_embeddings(), tmp_path / "embedding.onnx")
    ids = torch.tensor([[1, 5]])
    feed = {"input_ids": ids.numpy(), "features": np.zeros((0, 64), np.float32)}
    out = session(tmp_path / "embedding.onnx").run(None, feed)[0]
    np.testing.assert_allclose(out, lm.get_input_embeddings()(ids).numpy(), rtol=1e-6)


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


class Frozen(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, i] * i for i in range(x.shape[1])], dim=1)


@pytest.mark.parametrize("module", [Branches(), Frozen()], ids=["data-dependent branch", "frozen axis"])
def test_a_module_without_a_faithful_graph_is_refused_and_leaves_no_file(tmp_path, module):
    axes = {"x": {0: "batch", 1: "length"}}
    with pytest.raises(ExportRefused, match=r"^gate: torch\.export cannot trace this module: \S+") as refusal:
        export_graph(module, (torch.ones(2, 4),), tmp_path / "gate.onnx", ["x"], ["y"], axes)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_of_one_on_a_free_axis_is_refused(tmp_path):
    with pytest.raises(AssemblerError, match="1 along 'batch'"):
        export_graph(nn.Identity(), (torch.ones(1, 4),), tmp_path / "x.onnx", ["x"], ["y"], {"x": {0: "batch"}})


def test_export_leaves_the_module_as_it_was(tmp_path):
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    module[1].eval()
    export_graph(module, (torch.ones(2, 4),), tmp_path / "x.onnx", ["x"], ["y"], {"x": {0: "batch"}})
    assert (module.training, module[0].training, module[1].training) == (True, True, False)


def test_large_weights_go_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr("assembler.bundle.graphs.EXTERNAL_BYTES", 1024)
    module = nn.Linear(64, 64)
    x = torch.randn(2, 64)
    export_graph(module, (x,), tmp_path / "x.onnx", ["x"], ["y"], {"x": {0: "batch"}})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.onnx", "x.onnx.data"]
    assert compare("x", module(x), session(tmp_path / "x.onnx").run(None, {"x": x.numpy()})[0])["ok"]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@torch.no_grad()
def test_quantised_decoder_is_smaller_and_near(exported, tmp_path, name):
    lm, whole = exported(name)
    embeds = lm.get_input_embeddings()(torch.arange(6)[None])
    mask = torch.ones(1, 6, dtype=torch.long)
    expected, size = torch_logits(lm, embeds, mask), whole.stat().st_size
    for precision, limit in {"int8": 0.05, "int4": 0.6}.items():
        path = tmp_path / f"{precision}.onnx"
        quantize(whole, path, precision, skip=[])
        row = compare(precision, expected, step(session(path), embeds, mask, None)[0], limit)
        assert row["ok"], row
        assert path.stat().st_size < size
        size = path.stat().st_size


def test_quantise_keeps_what_it_is_told_to_skip(exported, tmp_path):
    _, whole = exported("llama")

    def floating(skip: list[str]) -> int:
        quantize(whole, tmp_path / "out.onnx", "int8", skip)
        return sum(node.op_type == "MatMul" for node in onnx.load(tmp_path / "out.onnx").graph.node)

    assert floating(["lm.lm_head"]) == floating([]) + 1
    with pytest.raises(AssemblerError, match="matches no matrix"):
        quantize(whole, tmp_path / "out.onnx", "int8", ["no_such_layer"])


class Encoder(nn.Module):
    """[n, 3, 8, 8] -> [n, 4, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 64, 4, stride=4)

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        return self.patch(photo).flatten(2).transpose(1, 2)


WORDS = ["<pad>", "<s>", "</s>", *(f"w{i}" for i in range(VOCAB - 3))]
PROCESSOR = ImageProcessor(size=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2_sliding"])
def served(request, exported, tmp_path_factory):
    """(torch LM, torch encoder, the bundle of both)."""
    folder = tmp_path_factory.mktemp("bundle")
    (lm, decoder), encoder = exported(request.param), Encoder().eval()
    shutil.copyfile(decoder, folder / "decoder.onnx")
    export_embedding(lm.get_input_embeddings(), folder / "embedding.onnx")
    sample = torch.zeros(2, 3, 8, 8)
    export_graph(encoder, (sample,), folder / "photo.onnx", ["photo"], ["features"], {"photo": {0: "batch"}})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(WORDS[:3])
    tokenizer.save(str(folder / "tokenizer.json"))
    manifest = Manifest(
        name="tiny",
        precision="fp32",
        inputs={"photo": Input(processor=PROCESSOR)},
        slots={"photo": Slot(graph="photo.onnx", inputs=["photo"], tokens=4)},
        prompt=[{"text": "w1 w2 "}, {"slot": "photo"}, {"text": "w3 "}, {"column": "question"}],
        bos=1,
        stop=[2],
        max_new_tokens=8,
        vocab_size=VOCAB,
        files={file.name: file_hash(file) for file in folder.iterdir()},
    )
    write_manifest(folder, manifest)
    return lm, encoder, Bundle(folder)


def torch_encode(lm, encoder, samples) -> tuple[torch.Tensor, torch.Tensor]:
    """inputs_embeds and attention_mask of the samples, padded on the left."""
    embed, rows = lm.get_input_embeddings(), []
    for sample in samples:
        head, tail = [1, WORDS.index("w1"), WORDS.index("w2")], [WORDS.index("w3")]
        tail += [WORDS.index(word) for word in sample["question"].split()]
        photo = torch.from_numpy(preprocess(sample["photo"], PROCESSOR))[None]
        rows.append(torch.cat([embed(torch.tensor(head)), encoder(photo)[0], embed(torch.tensor(tail))]))
    mask = padded_mask([len(row) for row in rows])
    embeds = torch.zeros(len(rows), mask.shape[1], rows[0].shape[1])
    for i, row in enumerate(rows):
        embeds[i, -len(row) :] = row
    return embeds, mask


photos = st.integers(0, 2**16).map(
    lambda seed: Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8))
)
questions = st.lists(st.sampled_from(WORDS[3:]), max_size=6).map(" ".join)
batches = st.lists(st.fixed_dictionaries({"photo": photos, "question": questions}), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None)
@given(samples=batches)
@torch.no_grad()
def test_bundle_generates_the_tokens_of_transformers(served, samples):
    lm, encoder, bundle = served
    embeds, mask = torch_encode(lm, encoder, samples)
    row = compare("logits", torch_logits(lm, embeds, mask), bundle.logits(samples))
    assert row["ok"], row
    out = lm.generate(
        inputs_embeds=embeds, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=2
    )
    expected = [[*ids, 2][: [*ids, 2].index(2)] for ids in out.tolist()]
    assert bundle.generate_ids(samples) == expected
    assert bundle.generate(samples, 2) == [" ".join(WORDS[i] for i in ids[:2] if i > 2) for ids in expected]


@torch.no_grad()
def test_features_are_those_of_the_encoder(served):
    _, encoder, bundle = served
    images = [Image.new("RGB", (20, 10), colour) for colour in ("red", "navy", "white")]
    pixels = torch.from_numpy(np.stack([preprocess(image, PROCESSOR) for image in images]))
    row = compare(
        "photo", encoder(pixels), bundle.features("photo.onnx", [{"photo": image} for image in images])["photo"][0]
    )
    assert row["ok"], row


def test_a_manifest_written_earlier_has_the_digest_that_it_was_given_then() -> None:
    """A field that was added since says nothing where it was not used; else every older bundle would be refused."""
    names = ("photo.onnx", "embedding.onnx", "decoder.onnx", "tokenizer.json")
    manifest = Manifest(
        name="old",
        precision="fp32",
        inputs={"photo": Input(processor=ImageProcessor(size=(8, 8)))},
        slots={"photo": Slot(graph="photo.onnx", inputs=["photo"], tokens=4)},
        prompt=[PromptPart(slot="photo")],
        stop=[2],
        max_new_tokens=3,
        vocab_size=9,
        files={name: str(i) for i, name in enumerate(names)},
    )
    assert manifest.own_digest() == "8b80edfde1f92360cc1c4290824cf810f15401507e66cc864673b246acd4e8a1"


def copied(bundle: Bundle, folder, **changes):
    for file in bundle.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_manifest(folder, bundle.manifest.model_copy(update=changes))
    return folder


def test_a_changed_file_is_refused(served, tmp_path):
    folder = copied(served[2], tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(AssemblerError, match=r"tokenizer\.json is not the file that was exported"):
        Bundle(folder)


def test_a_path_outside_the_folder_is_refused(served, tmp_path):
    folder = copied(served[2], tmp_path, decoder="../decoder.onnx")
    with pytest.raises(AssemblerError, match="is outside the bundle"):
        Bundle(folder)


def places(tree, path=()):
    """Every place in a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


WRONG = [None, -1, 0, 10**30, "", "x", [], {}, [[]], {"a": 1}, True, 1.5, "../../etc/passwd"]


@pytest.mark.parametrize("served", ["llama"], indirect=True)
def test_a_damaged_manifest_answers_or_is_refused_with_a_sentence(served, tmp_path):
    """Every value of the manifest, replaced by each wrong one."""
    folder = copied(served[2], tmp_path)
    whole = json.loads((folder / "manifest.json").read_text())
    sample = {"photo": Image.new("RGB", (8, 8)), "question": "w1"}
    refused = 0
    for place in places(whole):
        for wrong in WRONG:
            tree = json.loads(json.dumps(whole))
            inner = tree
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = wrong
            (folder / "manifest.json").write_text(json.dumps(tree))
            with contextlib.suppress(ValidationError):  # sealed anew, so that its values are looked at
                write_manifest(folder, Manifest.model_validate_json(json.dumps(tree)))
            try:
                Bundle(folder).generate([sample], 1)
            except AssemblerError:
                refused += 1
    assert refused > 200


@pytest.mark.parametrize("served", ["llama"], indirect=True)
def test_one_byte_changed_in_any_file_is_refused_with_the_files_name(served, tmp_path):
    folder = copied(served[2], tmp_path)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(AssemblerError, match=re.escape(path.name)):
                Bundle(folder)
        path.write_bytes(whole)
    assert Bundle(folder).manifest == served[2].manifest


@pytest.mark.parametrize("served", ["llama"], indirect=True)
@pytest.mark.parametrize("name", ["decoder.onnx", "tokenizer.json"])
def test_a_damaged_file_is_refused_even_where_its_hash_is_right(served, tmp_path, name):
    folder = copied(served[2], tmp_path)
    (folder / name).write_bytes(b"\x00damaged")
    files = {**served[2].manifest.files, name: file_hash(folder / name)}
    write_manifest(folder, served[2].manifest.model_copy(update={"files": files}))
    with pytest.raises(AssemblerError, match=rf"{name} is no (graph|tokenizer)"):
        Bundle(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "PPM", "TIFF", "GIF"])
def test_a_damaged_picture_opens_or_is_refused_with_a_sentence(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    path, rng = tmp_path / "picture", random.Random(0)
    Image.fromarray(noise).save(path, kind)
    whole = path.read_bytes()
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 2, 6])):
            damaged[rng.randrange(min(len(damaged), 300))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(whole), len(whole), rng.randrange(len(whole))])])
        try:
            assert open_image(path).size
        except AssemblerError as error:
            assert str(path) in str(error)


def test_a_sample_without_its_photo_or_text_is_refused(served):
    with pytest.raises(AssemblerError, match="has no 'photo'"):
        served[2].logits([{"question": "w1"}])
    with pytest.raises(AssemblerError, match="needs a text 'question'"):
        served[2].logits([{"photo": Image.new("RGB", (8, 8))}])


def test_runtime_loads_neither_torch_nor_transformers():
    code = "import sys, assembler.bundle.runtime; print({'torch', 'transformers', 'onnx'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_processor_normalises_any_image_mode(mode):
    image = Image.new("RGB", (5, 9), (255, 255, 255)).convert(mode)
    out = preprocess(image, PROCESSOR)
    assert (out.shape, out.dtype) == ((3, 8, 8), np.float32)
    np.testing.assert_allclose(out, 2.0, rtol=1e-6)


def test_processor_crops_the_middle():
    image = Image.new("L", (30, 10), 0)
    image.paste(255, (10, 0, 20, 10))
    out = preprocess(image, ImageProcessor(size=(10, 10), channels=1, fit="crop"))
    np.testing.assert_array_equal(out, np.ones((1, 10, 10), np.float32))


@pytest.mark.parametrize("other", [np.array([1.0, np.nan]), np.array([[1.0, 2.0]]), np.array([1.0, 2.1])])
def test_compare_refuses_nan_shape_and_drift(other):
    assert not compare("x", np.array([1.0, 2.0]), other)["ok"]
