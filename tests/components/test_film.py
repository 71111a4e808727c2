"""FiLM in a convolutional network."""

import pytest
import timm
import torch

from assembler.adapters.book import adapters_of
from assembler.errors import AssemblerError
from components.adapters.film import Film
from tests.conformance.hosts import host_of


@pytest.fixture
def tower() -> torch.nn.Module:
    torch.manual_seed(0)
    tower = timm.create_model("test_efficientnet", num_classes=0).eval()
    for key, value in tower.named_buffers():
        if "running" in key:
            value.uniform_(0.5, 1.5)
    return tower


@pytest.mark.parametrize("after", ["norms", "depthwise"])
@torch.no_grad()
def test_untrained_it_is_nothing_and_folded_into_batch_norm_it_is_what_it_was(tower, after):
    photo = torch.randn(2, 3, 32, 32)
    bare = tower(photo)
    keys = Film(host="host", after=after).attach(tower, "tune", seed=0)
    assert torch.equal(tower(photo), bare)
    for key in keys:
        tower.get_parameter(key).add_(0.1 * torch.randn(tower.get_parameter(key).shape))
    before = tower(photo)
    assert not torch.allclose(before, bare, atol=1e-3)
    adapters_of(tower).merge("tune")
    torch.testing.assert_close(tower(photo), before, rtol=1e-5, atol=1e-5)


def test_the_stem_the_depthwise_filters_and_the_head_have_it(tower):
    keys = Film(host="host", after="depthwise").attach(tower, "tune", seed=0)
    places = sorted({key.split(".")[2] for key in keys})
    assert places == ["embed_norm", "final", "stage3_layers_0_norm2", "stage4_layers_0_norm2"]


def test_a_norm_of_another_kind_is_refused():
    with pytest.raises(AssemblerError, match="norm1 is a LlamaRMSNorm; FiLM is of layer and batch norms"):
        Film(host="host").attach(host_of("llama"), "tune", seed=0)


def test_in_training_it_scales_what_is_normed_by_the_batch(tower):
    photo, bare = torch.randn(4, 3, 32, 32), timm.create_model("test_efficientnet", num_classes=0)
    bare.load_state_dict(tower.state_dict())
    Film(host="host").attach(tower, "tune", seed=0)
    assert torch.equal(tower.train()(photo), bare.train()(photo))
