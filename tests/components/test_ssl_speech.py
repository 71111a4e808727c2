"""The families of the comparison on speech models, on one frozen encoder."""

import functools

import pytest
import torch
from torch import nn

from components.adapters.adapter_bias import AdapterBias
from components.adapters.bitfit import Bitfit
from components.adapters.lora import Lora
from components.adapters.prefix import Prefix
from components.adapters.speech_bottleneck import SpeechBottleneck
from tests.conformance.hosts import HOSTS, host_of

FAMILIES = {
    "bottleneck": SpeechBottleneck(host="host", size=8, init="zero"),
    "LoRA": Lora(host="host", sites="layers.*.attn.{q,v}", rank=2),
    "AdapterBias": AdapterBias(host="host", reads="output", norms=False),
    "BitFit": Bitfit(host="host", where="layers"),
    "prefix": Prefix(host="host", length=3),
}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "prefix"])
def test_it_starts_as_the_bare_encoder(name):
    host, case = host_of("wav2vec2"), HOSTS["wav2vec2"]
    FAMILIES[name].attach(host, "tune", seed=0)
    with torch.no_grad():
        assert torch.equal(case.run(host), case.run(host_of("wav2vec2")))


def test_the_bias_of_every_module_in_a_layer_learns_and_no_other():
    host = host_of("wav2vec2")
    keys = Bitfit(host="host", where="layers").attach(host, "tune", seed=0)
    own = [p for key, p in host.encoder.layers.named_parameters() if key.endswith("bias")]
    assert sum(host.get_parameter(key).numel() for key in keys) == sum(p.numel() for p in own)


@functools.cache
def learned(name: str | None, task: str) -> float:
    """The loss after 30 steps of a head, and of an adapter where one is named, on the same frozen encoder."""
    generator = torch.Generator().manual_seed(0)
    pitch, loud = torch.rand(2, 16, 1, generator=generator)
    sound = (0.5 + loud) * torch.sin(torch.arange(64) * (0.2 + pitch))
    labels = ((pitch if task == "pitch" else loud)[:, 0] > 0.5).long()
    host = host_of("wav2vec2").requires_grad_(False)
    keys = [] if name is None else FAMILIES[name].attach(host, "tune", seed=0)
    torch.manual_seed(0)
    head = nn.Linear(16, 2)
    optimizer = torch.optim.Adam([*head.parameters(), *(host.get_parameter(key) for key in keys)], lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(host(sound).last_hidden_state.mean(1)), labels)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("task", ["pitch", "loudness"])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_learns_more_than_the_head_alone(name, task):
    assert learned(name, task) < learned(None, task)
