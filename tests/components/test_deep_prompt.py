"""Learned tokens in the layers of an encoder."""

import pytest
import torch

from components.adapters.deep_prompt import DeepPrompt
from tests.conformance.hosts import HOSTS, host_of


@torch.no_grad()
def test_they_are_tokens_of_the_layer_that_are_thrown_away_behind_it():
    host, bare, x = host_of("vit"), host_of("vit"), torch.randn(2, 5, 16)
    (key,) = DeepPrompt(host="host", length=3, layers=[1]).attach(host, "tune", seed=0)
    joined = torch.cat([host.get_parameter(key).expand(2, -1, -1), x], 1)
    torch.testing.assert_close(host.layers[1](x), bare.layers[1](joined)[:, 3:])
    assert torch.equal(host.layers[0](x), bare.layers[0](x))


@torch.no_grad()
def test_those_of_the_first_layer_alone_go_on_through_all():
    host, bare, x = host_of("vit"), host_of("vit"), torch.randn(2, 5, 16)
    (key,) = DeepPrompt(host="host", length=3, deep=False).attach(host, "tune", seed=0)
    expected = torch.cat([host.get_parameter(key).expand(2, -1, -1), x], 1)
    for layer in host.layers:
        x = layer(x)
    for layer in bare.layers:
        expected = layer(expected)
    torch.testing.assert_close(x, expected[:, 3:])


@pytest.mark.parametrize("deep", [True, False])
@torch.no_grad()
def test_padding_is_still_not_seen(deep):
    host, batch = host_of("bert"), HOSTS["bert"].batch
    DeepPrompt(host="host", length=3, deep=deep).attach(host, "tune", seed=0)
    mask = batch["attention_mask"].bool()
    other = {**batch, "input_ids": torch.where(mask, batch["input_ids"], 11)}
    found, again = (host(**one).last_hidden_state[mask] for one in (batch, other))
    torch.testing.assert_close(found, again)
