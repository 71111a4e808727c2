"""LayRA: which layers learn, what is forgotten, and the instruction residual."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from assembler.errors import AssemblerError
from components.adapters._residual import merge_residual
from components.adapters.layra import Layra
from tests.conformance.hosts import TEXT


def llama(layers: int):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**TEXT, "num_hidden_layers": layers})).eval()


def test_only_the_first_and_last_layers_learn():
    host = llama(6).requires_grad_(False)
    Layra(host="host", first=2, last=1, rank=2).attach(host, "tune", seed=0)
    learning = {key.split("layers_")[1][0] for key, p in host.named_parameters() if p.requires_grad}
    assert learning == {"0", "1", "5"}


def test_in_a_short_host_the_ends_may_meet():
    host = llama(2)
    names = Layra(host="host", first=10, last=2, rank=2).attach(host, "tune", seed=0)
    assert len(names) == 2 * 7 * 2


def test_the_ends_alone_learn_a_new_language_and_the_middle_stays_as_it_was():
    host = llama(4).requires_grad_(False)
    words = 5 + (torch.arange(6) * 5 + torch.arange(17)[:, None]) % 17
    keys = Layra(host="host", first=1, last=1, rank=4).attach(host, "tune", seed=0)
    middle = {key: p.clone() for key, p in host.named_parameters() if "layers.1." in key or "layers.2." in key}
    optimizer, losses = torch.optim.Adam([host.get_parameter(key) for key in keys], lr=3e-2), []
    for _ in range(40):
        optimizer.zero_grad()
        logits = host(input_ids=words).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.15
    assert all(torch.equal(host.get_parameter(key), value) for key, value in middle.items()) and len(middle) == 18


def test_the_residual_gives_the_adapted_model_at_0_and_the_instruct_model_on_the_base_at_1(tmp_path):
    base = {"a": torch.randn(3, 4), "b": torch.randn(5)}
    models = {"base": base}
    for name in ("adapted", "instruct"):
        models[name] = {key: value + 0.5 for key, value in base.items()} if name == "adapted" else {
            key: value * 2 for key, value in base.items()
        }  # fmt: skip
    paths = {name: tmp_path / f"{name}.safetensors" for name in models}
    for name, state in models.items():
        save_file(state, paths[name])
    out = tmp_path / "out.safetensors"
    merge_residual(paths["adapted"], paths["instruct"], paths["base"], out, lam=0.0)
    assert all(torch.equal(value, models["adapted"][key]) for key, value in load_file(out).items())
    merge_residual(paths["base"], paths["instruct"], paths["base"], out, lam=1.0)
    for key, value in load_file(out).items():
        torch.testing.assert_close(value, models["instruct"][key])


def test_models_that_differ_are_refused_and_nothing_is_written(tmp_path):
    for name, size in (("a", 3), ("b", 3), ("c", 4)):
        save_file({"w": torch.zeros(size)}, tmp_path / name)
    out = tmp_path / "out"
    with pytest.raises(AssemblerError, match=r"w is \[3\] in .*a.*one architecture"):
        merge_residual(tmp_path / "a", tmp_path / "b", tmp_path / "c", out)
    (tmp_path / "b").write_bytes(b"no")
    with pytest.raises(AssemblerError, match="cannot read"):
        merge_residual(tmp_path / "a", tmp_path / "b", tmp_path / "a", out)
    assert not out.exists() and not list(tmp_path.glob(".*"))
