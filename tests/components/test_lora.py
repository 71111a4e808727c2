"""LoRA on hosts: counts of the papers, identity untrained, merged like unmerged, gone without a trace."""

import re
from collections.abc import Callable

import pytest
import torch
import transformers as tf
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from assembler.anatomy import resolve
from assembler.errors import AssemblerError
from components.adapters._lora import (
    inject_lora,
    lora_names,
    lora_parameters,
    merge_lora,
    remove_lora,
    unmerge_lora,
)

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA3_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_key_value_heads": 8, "vocab_size": 128256}
LLAMA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_key_value_heads": 32, "vocab_size": 32000}
IDS = torch.tensor([[1, 5, 7, 2]])


def llama() -> nn.Module:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**SIZE, num_key_value_heads=1, vocab_size=32))


def gpt2() -> nn.Module:
    return tf.GPT2LMHeadModel(
        tf.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=32, bos_token_id=1, eos_token_id=2)
    )


def vit() -> nn.Module:
    return VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3)


def text(host: nn.Module) -> torch.Tensor:
    return host(input_ids=IDS).logits


def image(host: nn.Module) -> torch.Tensor:
    return host(torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16))


Host = tuple[Callable[[], nn.Module], Callable[[nn.Module], torch.Tensor], str]
HOSTS: dict[str, Host] = {
    "llama": (llama, text, "layers.*.{attn.{q,v},mlp.down}"),
    "gpt2": (gpt2, text, "layers.*.{attn.qkv,mlp.up}"),
    "vit": (vit, image, "layers.*.attn.{qkv,o}"),
    "vit convolution": (vit, image, "embed"),
    "llama embedding": (llama, text, "embed"),
}


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Host:
    torch.manual_seed(0)
    build, run, sites = HOSTS[request.param]
    built = build().eval()
    return built, torch.no_grad()(run), sites


def stir(host: nn.Module, names: list[str]) -> None:
    """Stand in for training: move the named parameters."""
    with torch.no_grad():
        for name in names:
            parameter = host.get_parameter(name)
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize(
    ("shape", "rank", "count"), [(LLAMA3_8B, 8, 3_407_872), (LLAMA_7B, 16, 8_388_608)], ids=["Llama-3-8B", "LLaMA-7B"]
)
def test_counts_on_meta(shape: dict, rank: int, count: int) -> None:
    with torch.device("meta"):
        host = tf.LlamaForCausalLM(tf.LlamaConfig(**shape, num_hidden_layers=32, num_attention_heads=32))
    linears = [host.get_submodule(path) for _, path in resolve(host, "layers.*.attn.{q,v}")]
    names = inject_lora(host, "layers.*.attn.{q,v}", rank=rank, alpha=16)
    new = [host.get_parameter(name) for name in names]
    assert sum(p.numel() for p in new) == count
    assert lora_parameters([(m.in_features, m.out_features) for m in linears], rank) == count
    assert all(p.is_meta for p in new)


@pytest.mark.parametrize("dora", [False, True])
def test_untrained_is_bit_exact(host: Host, dora: bool) -> None:
    model, run, sites = host
    before = run(model)
    inject_lora(model, sites, rank=4, alpha=8, dropout=0.5, dora=dora)
    assert torch.equal(run(model), before)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("rslora", [False, True])
def test_merged_computes_what_unmerged_does(host: Host, rslora: bool, dora: bool) -> None:
    model, run, sites = host
    before = run(model)
    stir(model, inject_lora(model, sites, rank=4, alpha=8, rslora=rslora, dora=dora))
    tuned = run(model)
    assert not torch.allclose(tuned, before, atol=1e-4)
    merge_lora(model, "default")
    torch.testing.assert_close(run(model), tuned, atol=1e-5, rtol=1e-5)
    unmerge_lora(model)
    torch.testing.assert_close(run(model), tuned, atol=1e-5, rtol=1e-5)


def test_remove_leaves_no_trace(host: Host) -> None:
    model, run, sites = host
    before, state = run(model), {k: v.clone() for k, v in model.state_dict().items()}
    modules = dict(model.named_modules())
    stir(model, inject_lora(model, sites, rank=4, alpha=8))
    remove_lora(model)
    assert dict(model.named_modules()) == modules
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(run(model), before)
    assert not hasattr(model, "peft_config")


def test_remove_of_a_merged_adapter_must_be_meant(host: Host) -> None:
    model, run, sites = host
    stir(model, inject_lora(model, sites, rank=4, alpha=8))
    tuned = run(model)
    merge_lora(model)
    with pytest.raises(AssemblerError, match="call unmerge_lora first"):
        remove_lora(model)
    remove_lora(model, keep_merged=True)
    torch.testing.assert_close(run(model), tuned, atol=1e-5, rtol=1e-5)
    assert not lora_names(model)


def test_flags_of_the_host_are_kept_and_new_parameters_train(host: Host) -> None:
    model, _, sites = host
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
    flags = {id(p): p.requires_grad for p in model.parameters()}
    names = inject_lora(model, sites, rank=4, alpha=8)
    assert {id(p): p.requires_grad for p in model.parameters() if id(p) in flags} == flags
    assert {name for name, p in model.named_parameters() if id(p) not in flags} == set(names)
    assert all(model.get_parameter(name).requires_grad for name in names)


def test_two_adapters_add_up(host: Host) -> None:
    model, run, sites = host
    first = inject_lora(model, sites, rank=4, alpha=8, name="first")
    stir(model, first)
    one = run(model)
    for name in first[::2]:
        model.get_parameter(name).requires_grad_(False)
    flags = {name: model.get_parameter(name).requires_grad for name in first}
    second = inject_lora(model, sites, rank=2, alpha=8, name="second")
    assert torch.equal(run(model), one)
    assert {name: model.get_parameter(name).requires_grad for name in first} == flags
    assert not set(first) & set(second)
    assert lora_names(model) == ["first", "second"]
    stir(model, second)
    both = run(model)
    assert not torch.allclose(both, one, atol=1e-4)
    with pytest.raises(AssemblerError, match="unmerged adapter second; merge both in one call"):
        merge_lora(model, "first")
    merge_lora(model)
    torch.testing.assert_close(run(model), both, atol=1e-5, rtol=1e-5)


def test_second_adapter_may_sit_elsewhere() -> None:
    model = llama().eval()
    stir(model, inject_lora(model, "layers.*.attn.q", rank=4, alpha=8, name="first"))
    one = text(model)
    names = inject_lora(model, "layers.*.mlp.up", rank=4, alpha=8, name="second")
    assert torch.equal(text(model), one)
    text(model).sum().backward()
    assert all(model.get_parameter(name).grad is not None for name in names)


def test_gradients_reach_the_adapter() -> None:
    model = llama().requires_grad_(False)
    names = inject_lora(model, "layers.*.attn.{q,v}", rank=4, alpha=8)
    text(model).square().sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(names)


@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_a_seed_decides_the_draw_and_spares_the_global_generator(init: str) -> None:
    def draw(seed: int) -> list[torch.Tensor]:
        model = llama()
        state = torch.get_rng_state()
        names = inject_lora(model, "layers.*.attn.q", rank=4, alpha=8, init=init, seed=seed)
        assert torch.equal(torch.get_rng_state(), state)
        return [model.get_parameter(name).detach() for name in names if "lora_A" in name]

    one, same, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("training", [False, True])
def test_new_layers_take_the_mode_of_the_host(training: bool) -> None:
    model = llama().train(training)
    inject_lora(model, "layers.*.attn.q", rank=4, alpha=8, dropout=0.5)
    assert all(module.training == training for module in model.modules())


@pytest.mark.parametrize(
    ("build", "sites", "instead"),
    [
        (gpt2, "layers.*.attn.{q,v}", "layers.*.attn.qkv"),
        (vit, "layers.[0-1].attn.q", "layers.[0-1].attn.qkv"),
        (vit, "layers.*.{attn.q,mlp.up}", "{layers.*.attn.qkv,layers.*.mlp.up}"),
    ],
)
def test_slices_of_a_fused_projection_are_refused(build: Callable, sites: str, instead: str) -> None:
    said = f"{sites} names slices of a fused projection, and LoRA takes only whole layers here: use {instead} instead"
    model = build()
    with pytest.raises(AssemblerError, match=f"^{re.escape(said)}$"):
        inject_lora(model, sites, rank=4, alpha=8)
    assert inject_lora(model, instead, rank=4, alpha=8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
        ({"init": "pissa"}, "no init 'pissa'; use one of kaiming, gaussian"),
        ({"name": "a.b"}, "adapter name 'a.b' does not do"),
        ({"sites": "layers.*.norm1"}, "site layers.0.norm1 is a LlamaRMSNorm"),
        ({"sites": "layers.*.attn.z"}, "no site 'layers.*.attn.z'"),
    ],
)
def test_what_does_not_do_is_refused_before_the_host_changes(change: dict, said: str) -> None:
    model = llama()
    modules = dict(model.named_modules())
    with pytest.raises(AssemblerError, match=re.escape(said)):
        inject_lora(model, **{"sites": "layers.*.attn.q", "rank": 4, "alpha": 8, **change})
    assert dict(model.named_modules()) == modules


def test_a_taken_name_and_a_merged_host_are_refused() -> None:
    model = llama()
    inject_lora(model, "layers.*.attn.q", rank=4, alpha=8)
    with pytest.raises(AssemblerError, match="already has an adapter 'default'"):
        inject_lora(model, "layers.*.attn.v", rank=4, alpha=8)
    merge_lora(model)
    with pytest.raises(AssemblerError, match="call unmerge_lora before adding 'second'"):
        inject_lora(model, "layers.*.attn.q", rank=4, alpha=8, name="second")
    with pytest.raises(AssemblerError, match="no adapter 'other'; it has default"):
        merge_lora(model, "other")
