"""PETL for spectrogram transformers: a convolution along the tokens beside the MLP."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from components.adapters._bottleneck import Bottleneck
from components.adapters._conformer_conv import ConformerConv as Module
from components.adapters.conformer_conv import ConformerConv
from tests.conformance.hosts import HOSTS, host_of


def test_an_up_projection_of_zeros_learns_and_two_matrices_of_zeros_never_would():
    both, one = Bottleneck(6, 3, "gelu"), Bottleneck(6, 3, "gelu")
    nn.init.zeros_(both.down.weight)
    start = one.down.weight.detach().clone()
    x, goal = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    for module in (both, one):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            (module(x) - goal).pow(2).mean().backward()
            optimizer.step()
    assert not both.down.weight.any() and not both.up.weight.any()
    assert one.up.weight.all() and not torch.equal(one.down.weight, start)


def test_it_learns_what_depends_on_the_neighbours_and_a_bottleneck_of_its_size_does_not():
    """A frame's label says whether the one before it is louder."""
    torch.manual_seed(0)
    frames = torch.randn(32, 12, 4)
    labels = (frames[:, :-1, 0] > frames[:, 1:, 0]).float()
    losses = {}
    for module in (Module(4, 4, 3, zero=True), Bottleneck(4, 9, "gelu")):
        head = nn.Linear(4, 1)
        optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=0.02)
        for _ in range(100):
            optimizer.zero_grad()
            scores = head(frames + module(frames))[:, 1:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(scores, labels)
            loss.backward()
            optimizer.step()
        losses[type(module).__name__] = (loss.item(), sum(p.numel() for p in module.parameters()))
    (conv, few), (bottleneck, many) = losses["ConformerConv"], losses["Bottleneck"]
    assert abs(few - many) < 10 and conv < 0.6 * bottleneck


@pytest.mark.parametrize(("init", "same"), [("zero", True), ("default", False)])
def test_it_starts_as_the_host_where_its_last_linear_is_zero(init, same):
    host, case = host_of("ast"), HOSTS["ast"]
    ConformerConv(host="host", size=4, kernel=5, init=init).attach(host, "tune", seed=0)
    with torch.no_grad():
        assert torch.equal(case.run(host), case.run(host_of("ast"))) is same


def test_an_even_number_of_taps_is_refused():
    with pytest.raises(ValidationError, match="has a middle"):
        ConformerConv(host="host", kernel=4)
