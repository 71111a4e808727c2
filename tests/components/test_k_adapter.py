"""K-Adapter: a side network that the host never sees."""

import torch

from assembler.adapters.book import adapters_of
from components.adapters.k_adapter import KAdapter
from tests.conformance.hosts import HOSTS, host_of

SMALL = {"host": "host", "taps": [0, 1], "size": 8, "inner": 12, "heads": 2, "depth": 1}


@torch.no_grad()
def test_the_hosts_own_states_are_the_same_bits_whatever_it_has_learned():
    case, host = HOSTS["bert"], host_of("bert")
    bare = host(**case.batch, output_hidden_states=True)
    keys = KAdapter(**SMALL).attach(host, "facts", seed=0)
    for key in keys:
        host.get_parameter(key).add_(torch.randn(host.get_parameter(key).shape))
    found = host(**case.batch, output_hidden_states=True)
    assert torch.equal(found.hidden_states[1], bare.hidden_states[1])
    assert not torch.allclose(found.last_hidden_state, bare.last_hidden_state)


def test_no_gradient_reaches_the_host_and_two_of_them_do_not_see_each_other():
    case, host = HOSTS["bert"], host_of("bert").requires_grad_(False)
    outputs = {}
    for name, seed in (("facts", 0), ("language", 1)):
        KAdapter(**SMALL).attach(host, name, seed=seed)
        adapters_of(host).activate(name)
        outputs[name] = case.run(host)
    adapters_of(host).activate("average(facts, language)")
    both = case.run(host)
    torch.testing.assert_close(both, (outputs["facts"] + outputs["language"]) / 2)
    both.sum().backward()
    assert all(p.grad is None for key, p in host.named_parameters() if not key.startswith("adapters."))
    adapters_of(host).activate("facts")
    adapters_of(host).remove("language")
    assert torch.equal(case.run(host), outputs["facts"])


@torch.no_grad()
def test_its_first_layer_starts_as_almost_the_identity():
    host = host_of("bert")
    KAdapter(**SMALL).attach(host, "facts", seed=0)
    tap = next(module for module in host.modules() if type(module).__name__ == "Tap")
    u = torch.randn(2, 5, 16)
    torch.testing.assert_close(tap(u, None), u, rtol=0, atol=1e-2)


@torch.no_grad()
def test_added_from_zero_it_starts_as_the_host():
    host, case = host_of("bert"), HOSTS["bert"]
    KAdapter(**SMALL, join="add").attach(host, "facts", seed=0)
    assert torch.equal(case.run(host), case.run(host_of("bert")))
