"""A compiled spec is the model one would write by hand, to the bit, and torch's tools take it."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from assembler.batches import Batches, split
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.forecast import fake_batch, summary
from assembler.spec import parse
from components.backbones._causal_lm import byte_tokenizer

LLAMA = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2}
SPEC = f"""
assembler: 1
nodes:
  photo: {{type: input.image, size: [64, 64]}}
  eyes: {{type: encoder.timm, model: test_efficientnet}}
  bridge: {{type: projector.mlp, norm: true}}
  talk: {{type: backbone.causal_lm, arch: llama, config: {LLAMA}, prompt: "{{photo}} {{question}} {{answer}}"}}
edges: [photo -> eyes, eyes -> bridge, bridge -> talk.photo]
data: {{type: dataset.digits, columns: {{photo: image, answer: word}}}}
"""


class ByHand(nn.Module):
    """The same model without this project."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes = timm.create_model("test_efficientnet", num_classes=0)
        self.norm, self.up, self.down = nn.LayerNorm(256), nn.Linear(256, 64), nn.Linear(64, 64)
        self.lm = LlamaForCausalLM(LlamaConfig(**LLAMA))

    def forward(self, photo, input_ids, attention_mask, labels):
        x = self.eyes.forward_features(photo).flatten(2).transpose(1, 2)  # [B, 4, 256]
        x = self.down(F.gelu(self.up(self.norm(x))))  # [B, 4, 64]
        words = self.lm.model.embed_tokens(input_ids.clamp(max=299))
        rows = x.flatten(0, 1)[(input_ids - 300).clamp(min=0)]
        out = self.lm(
            inputs_embeds=torch.where((input_ids < 300)[..., None], words, rows),
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=labels.shape[1] + 1,
        )
        logits = out.logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100), logits


def compiled(text: str = SPEC, base: Path = Path()):
    graph = check(parse(text, base / "spec.yaml")).require()
    return graph, compile_graph(graph)


@pytest.fixture(scope="module")
def pair():
    """(assembly, the model by hand with its weights, a batch of real digits)."""
    graph, assembly = compiled()
    hand = ByHand()
    hand.eyes.load_state_dict(assembly.nodes["eyes"].tower.state_dict())
    hand.lm.load_state_dict(assembly.nodes["talk"].lm.state_dict())
    norm, up, _, down = assembly.nodes["bridge"]
    for ours, theirs in ((hand.norm, norm), (hand.up, up), (hand.down, down)):
        ours.load_state_dict(theirs.state_dict())
    return assembly.eval(), hand.eval(), Batches(graph)(split(graph)[0][:6])


def test_the_forward_is_that_of_a_model_written_by_hand_bit_for_bit(pair):
    assembly, hand, batch = pair
    loss, logits = hand(**{key.removeprefix("talk_"): tensor for key, tensor in batch.items()})
    out = assembly(**batch)
    assert torch.equal(out["loss"], loss) and torch.equal(out["logits"], logits)


def test_the_gradients_are_those_of_a_model_written_by_hand_bit_for_bit(pair):
    assembly, hand, batch = pair
    assembly.train_only(["eyes", "bridge", "talk"])
    assembly.eval()
    assembly(**batch)["loss"].backward()
    hand(**{key.removeprefix("talk_"): tensor for key, tensor in batch.items()})[0].backward()
    ours = [p.grad for p in assembly.parameters() if p.grad is not None]
    theirs = [p.grad for p in hand.parameters() if p.grad is not None]
    assert len(ours) == len(theirs) == len(list(hand.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_torch_compile_takes_the_whole_forward_and_gives_the_same(pair):
    assembly, _, batch = pair
    with torch.no_grad():
        expected = assembly(**batch)["logits"]
        found = torch.compile(assembly, backend="aot_eager", fullgraph=True)(**batch)["logits"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_torch_export_takes_the_whole_forward(pair):
    assembly, _, batch = pair
    with torch.no_grad():
        program = torch.export.export(assembly, (), kwargs=batch, strict=False)
        torch.testing.assert_close(program.module()(**batch)["logits"], assembly(**batch)["logits"])


def test_a_left_padded_row_counts_as_it_would_alone(pair):
    assembly, _, _ = pair
    graph, _ = compiled()
    rows = [{**row, "question": "Which?" * (i + 1)} for i, row in enumerate(split(graph)[0][:3])]
    batches = Batches(graph)
    with torch.no_grad():
        together = assembly(**batches(rows))["logits"]
        alone = assembly(**batches(rows[:1]))["logits"]
    torch.testing.assert_close(together[0, -alone.shape[1] :], alone[0], rtol=1e-4, atol=1e-5)


ARCHITECTURES = {
    **{arch: {} for arch in ["llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"]},
    **{arch: {} for arch in ["phi", "phi3", "olmo2", "stablelm", "starcoder2", "granite", "smollm3", "cohere"]},
    **{arch: {} for arch in ["glm", "gpt_neox", "nemotron", "exaone4", "helium", "ernie4_5"]},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "mamba": {},
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_any_of_these_lms_is_joined_by_one_word_in_the_spec(arch):
    """Gradients reach the bridge through it, padding changes nothing, and its cache gives what no cache gives."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    own = ARCHITECTURES[arch]
    config = {"vocab_size": 300, **(own if "n_layer" in own or "n_layers" in own else {**sizes, **own})}
    graph, assembly = compiled(SPEC.replace("arch: llama", f"arch: {arch}").replace(str(LLAMA), str(config)))
    batch = fake_batch(graph, 1, 8)
    batch["photo"].normal_()
    assembly.train_only(["bridge"])
    assembly(**batch)["loss"].backward()
    assert all(p.grad.any() for p in assembly.nodes["bridge"].parameters())
    lm, features, ids = assembly.nodes["talk"], assembly.features("talk", batch), batch["talk_input_ids"]
    nothing = torch.zeros(1, 5, dtype=torch.long)
    with torch.no_grad():
        alone = lm.logits(ids, torch.ones_like(ids), features, 3)
        mask = torch.cat([nothing, torch.ones_like(ids)], 1)
        torch.testing.assert_close(
            lm.logits(torch.cat([nothing, ids], 1), mask, features, 3), alone, rtol=1e-4, atol=1e-5
        )
        (answer,) = lm.generate_ids(ids, torch.ones_like(ids), features, 4, [])
        for token in answer:
            assert token == lm.logits(ids, torch.ones_like(ids), features, 1)[0, -1].argmax()
            ids = torch.cat([ids, torch.tensor([[token]])], 1)


@pytest.mark.parametrize(
    ("arch", "sentence"),
    [("rwkv", "does not look at the attention mask"), ("mistral", "4 is no multiple of num_key_value_heads 8")],
)
def test_an_lm_that_would_be_wrong_or_break_late_is_refused(arch, sentence):
    config = {key: size for key, size in LLAMA.items() if key != "num_key_value_heads"}
    with pytest.raises(AssemblerError, match=sentence):
        compiled(SPEC.replace("arch: llama", f"arch: {arch}").replace(str(LLAMA), str(config)))


COUNTS = {
    "LoRA r=8 on q and v of Llama-3-8B": (
        {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
        | {"num_attention_heads": 32, "num_key_value_heads": 8},
        8,
        3_407_872,
        8_030_261_248,
    ),
    "LoRA r=16 on q and v of LLaMA-7B": (
        {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
        | {"num_attention_heads": 32},
        16,
        8_388_608,
        6_738_415_616,
    ),
}


@pytest.mark.parametrize("case", COUNTS)
def test_published_counts_are_met(case):
    config, rank, adapter, host = COUNTS[case]
    text = f"assembler: 1\nnodes: {{talk: {{type: backbone.causal_lm, arch: llama, config: {config}}}}}\n"
    text += f"adapters: {{tune: {{type: adapter.lora, host: talk, rank: {rank}}}}}\n"
    report = summary(check(parse(text, Path("spec.yaml"))))
    assert report["adapters"]["tune"]["parameters"] == adapter
    assert report["nodes"]["talk"]["parameters"] == host


def test_vit_b_16_has_timms_count():
    text = (
        "assembler: 1\nnodes: {photo: {type: input.image}, eyes: {type: encoder.timm, model: vit_base_patch16_224}}\n"
    )
    report = summary(check(parse(text + "edges: [photo -> eyes]\n", Path("spec.yaml"))))
    by_hand = sum(p.numel() for p in timm.create_model("vit_base_patch16_224", num_classes=0).parameters())
    assert report["nodes"]["eyes"]["parameters"] == by_hand == 85_798_656


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder laid out as the hub is, with a tiny LLM in it."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**LLAMA))
    model.save_pretrained(tmp_path / "org" / "tiny")
    byte_tokenizer().save_pretrained(tmp_path / "org" / "tiny")
    monkeypatch.setenv("ASSEMBLER_HUB", str(tmp_path))
    return model.eval(), tmp_path


@pytest.mark.parametrize("source", ["hf:org/tiny", "file:org/tiny"])
def test_a_model_of_the_hub_is_transformers_own(hub, source):
    model, folder = hub
    old = f"arch: llama, config: {LLAMA}"
    graph, assembly = compiled(SPEC.replace(old, f'weights: "{source}"'), folder)
    ids = torch.randint(3, 200, (2, 9))
    with torch.no_grad():
        assert torch.equal(assembly.nodes["talk"].lm(ids).logits, model(ids).logits)
    tokenizer = graph.parts["talk"].load_tokenizer(folder)
    assert tokenizer("abc")["input_ids"] == AutoTokenizer.from_pretrained(folder / "org" / "tiny")("abc")["input_ids"]


def test_a_model_that_lacks_a_weight_is_refused_and_not_drawn_at_random(hub):
    _, folder = hub
    path = folder / "org" / "tiny" / "model.safetensors"
    state = load_file(path)
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(AssemblerError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        compiled(SPEC.replace(f"arch: llama, config: {LLAMA}", "weights: hf:org/tiny"), folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"damaged"),
        ("model.safetensors", b""),
        ("tokenizer.json", b"{}"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "64", "vocab_size": 300}'),
        ("config.json", b'{"model_type": "llama", "hidden_size": 64, "vocab_size": 300, "mlp_bias": "x"}'),
        ("config.json", b"[" * 100_000),
    ],
)
def test_a_damaged_model_is_refused_with_a_sentence(hub, name, content):
    _, folder = hub
    (folder / "org" / "tiny" / name).write_bytes(content)
    with pytest.raises(AssemblerError):
        graph, _ = compiled(SPEC.replace(f"arch: llama, config: {LLAMA}", "weights: file:org/tiny"), folder)
        graph.parts["talk"].load_tokenizer(folder)


def test_a_frozen_encoder_is_in_evaluation_mode_while_the_rest_learns(pair):
    _, assembly = compiled()
    assembly.train_only(["bridge"])
    assembly.train()
    modes = {node: module.training for node, module in assembly.nodes.items()}
    assert modes == {"eyes": False, "bridge": True, "talk": False}


def test_a_model_that_cannot_be_made_is_refused_with_a_sentence():
    text = SPEC.replace("arch: llama", "arch: lama")
    with pytest.raises(AssemblerError, match="cannot make a causal LM `lama`"):
        compiled(text)
