"""AF Adapter: one wide layer, computed beside the frozen one."""

import copy

import pytest
import torch
import transformers as tf
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.errors import AssemblerError
from components.adapters.af_adapter import AfAdapter
from tests.conformance.hosts import DRY, HOSTS, TEXT, host_of


def test_it_is_a_layer_with_wider_matrices():
    """The same BERT layer with the new heads and units joined to its own weights."""
    host = host_of("bert")
    keys = AfAdapter(host="host", heads=2, units=5, layers=[0]).attach(host, "tune", seed=0)
    new = {key.rpartition("adapters.tune.")[2]: host.get_parameter(key) for key in keys}
    plain = host_of("bert")
    wide = copy.deepcopy(plain)
    layer = wide.encoder.layer[0]
    (heads,) = {key.partition(".")[0] for key in new if ".q." in key}
    (units,) = {key.partition(".")[0] for key in new if ".up." in key}

    def joined(linear: nn.Linear, name: str, axis: int) -> nn.Linear:
        weight = torch.cat([linear.weight, new[f"{name}.weight"]], axis)
        bias = new[f"{name}.bias"]
        made = nn.Linear(weight.shape[1], weight.shape[0])
        made.weight, made.bias = nn.Parameter(weight), nn.Parameter(
            torch.cat([linear.bias, bias]) if axis == 0 else linear.bias + bias
        )  # fmt: skip
        return made

    attention = layer.attention.self
    for own, mine in (("query", "q"), ("key", "k"), ("value", "v")):
        setattr(attention, own, joined(getattr(attention, own), f"{heads}.{mine}", 0))
    attention.num_attention_heads += 2
    attention.all_head_size = 4 * attention.attention_head_size
    layer.attention.output.dense = joined(layer.attention.output.dense, f"{heads}.o", 1)
    layer.intermediate.dense = joined(layer.intermediate.dense, f"{units}.up", 0)
    layer.output.dense = joined(layer.output.dense, f"{units}.down", 1)
    case = HOSTS["bert"]
    with torch.no_grad():
        torch.testing.assert_close(case.run(host), case.run(wide), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(case.run(host), case.run(plain), atol=1e-3)


@pytest.mark.parametrize("family", ["bert", "timm"])
def test_with_zero_output_linears_it_starts_as_the_host(family):
    host, case = host_of(family), HOSTS[family]
    AfAdapter(host="host", units=3, init="zero").attach(host, "tune", seed=0)
    with torch.no_grad():
        torch.testing.assert_close(case.run(host), case.run(host_of(family)), rtol=0, atol=1e-6)


def test_a_host_that_turns_its_queries_is_refused():
    with pytest.raises(AssemblerError, match="absolute positions"):
        AfAdapter(host="host").attach(host_of("llama"), "tune", seed=0)


def test_a_new_domain_is_learned_and_without_the_adapter_the_old_one_is_as_it_was():
    """Two corpora of cyclic sentences with the last word masked: steps of one, then of five."""
    ids = {name: 5 + (torch.arange(6) * by + torch.arange(17)[:, None]) % 17 for name, by in (("old", 1), ("new", 5))}
    torch.manual_seed(0)
    host = tf.BertForMaskedLM(tf.BertConfig(**{**TEXT, **DRY})).eval()

    def loss(name):
        masked = ids[name].clone()
        masked[:, -1] = 4
        return nn.functional.cross_entropy(host(input_ids=masked).logits[:, -1], ids[name][:, -1])

    def train(parameters, name, until):
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            found = loss(name)
            if found.item() < until:
                break
            found.backward()
            optimizer.step()
        return found.item()

    assert train(list(host.parameters()), "old", 0.2) < 0.2
    host.requires_grad_(False)
    before = loss("old")
    keys = AfAdapter(host="host", units=32, init="zero").attach(host, "tune", seed=0)
    assert train([host.get_parameter(key) for key in keys], "new", 1.0) < 1.0
    adapters_of(host).activate("")
    assert torch.equal(loss("old"), before)
