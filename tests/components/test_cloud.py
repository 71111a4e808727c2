"""Cloud-Adapter: patches attend to a convolutional view of the image."""

import copy

import pytest
import torch

from assembler.adapters.book import adapters_of
from assembler.errors import AssemblerError
from components.adapters.cloud import CloudAdapter
from tests.conformance.hosts import HOSTS, OTHERS, host_of

SMALL = {"host": "host", "channels": 4, "scales": 3, "rank": 2, "heads": 1}


@pytest.mark.parametrize("family", ["vit", "timm", "dinov2"])
@torch.no_grad()
def test_with_its_last_factor_at_zero_the_features_are_the_bare_ones(family):
    case, host = {**HOSTS, **OTHERS}[family], host_of(family)
    CloudAdapter(**SMALL, init="zero").attach(host, "tune", seed=0)
    assert torch.equal(case.run(host), case.run(host_of(family)))


@torch.no_grad()
def test_it_changes_the_patches_and_never_the_class_token():
    host = host_of("vit")
    CloudAdapter(**SMALL, layers=[1]).attach(host, "tune", seed=0)
    photo = torch.randn(2, 3, 8, 8)
    bare = host_of("vit")(pixel_values=photo).last_hidden_state
    found = host(pixel_values=photo).last_hidden_state
    assert torch.equal(found[:, 0], bare[:, 0]) and (found[:, 1:] != bare[:, 1:]).any(-1).all()


@torch.no_grad()
def test_the_context_is_that_of_the_image_that_the_host_sees():
    host = host_of("vit")
    CloudAdapter(**SMALL).attach(host, "tune", seed=0)
    first, second = torch.randn(2, 1, 3, 8, 8)
    alone = host(pixel_values=first).last_hidden_state
    host(pixel_values=second)
    assert torch.equal(host(pixel_values=first).last_hidden_state, alone)
    assert adapters_of(host).part("tune").scales == 3


@torch.no_grad()
def test_it_compiles_to_one_graph():
    host, case = host_of("timm"), HOSTS["timm"]
    CloudAdapter(**SMALL).attach(host, "tune", seed=0)
    torch._dynamo.reset()
    compiled = case.out(torch.compile(host, backend="eager", fullgraph=True)(**case.batch))
    torch.testing.assert_close(compiled, case.run(host))


def test_a_copy_in_the_middle_of_training_is_one_of_the_weights():
    host, case = host_of("vit"), HOSTS["vit"]
    CloudAdapter(**SMALL).attach(host, "tune", seed=0)
    case.run(host).sum().backward()
    assert torch.equal(case.run(copy.deepcopy(host)), case.run(host))


def test_a_host_that_cuts_no_patches_is_refused():
    with pytest.raises(AssemblerError, match="cuts no patches"):
        CloudAdapter(**SMALL).attach(host_of("bert"), "tune", seed=0)
