"""One method of each kind on hosts that the laws do not draw: open_clip, DINOv2, WavLM, Gemma 2, eager attention."""

import pytest
import torch
from torch import nn

from assembler.adapters.attention import opened
from assembler.adapters.book import adapters_of
from assembler.errors import AssemblerError
from components.adapters.houlsby import Houlsby
from components.adapters.parallel import Parallel
from components.adapters.pfeiffer import Pfeiffer
from components.adapters.prefix import Prefix
from tests.conformance.hosts import OTHERS, host_of

METHODS = {
    "serial": Houlsby(host="h", size=4, init="zero"),
    "after norm": Pfeiffer(host="h", reduction=4, init="zero"),
    "beside the stream": Parallel(host="h", size=4, reads="stream", beside=["attn", "mlp"]),
    "attention": Prefix(host="h", length=3),
}


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("kind", METHODS)
def test_it_is_put_in_changes_the_output_and_is_taken_off(family, kind):
    case, host = OTHERS[family], host_of(family)
    with torch.no_grad():
        before = case.run(host)
        if (family, kind) == ("wavlm", "attention"):
            METHODS[kind].attach(host, "tune", 0)
            with pytest.raises(AssemblerError, match="WavLMAttention does not attend by scaled_dot_product_attention"):
                case.run(host)
            return
        new = METHODS[kind].attach(host, "tune", 0)
        if METHODS[kind].type != "adapter.prefix":
            assert torch.equal(case.run(host), before)
        for key, parameter in host.named_parameters():
            if key in new:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        assert not torch.equal(case.run(host), before)
        adapters_of(host).remove("tune")
        assert torch.equal(case.run(host), before)


def test_eager_attention_and_sdpa_see_the_same_prefix():
    outputs = []
    for family in ("eager llama", "llama"):
        host = host_of(family)
        METHODS["attention"].attach(host, "tune", 0)
        with torch.no_grad():
            outputs.append(OTHERS["eager llama"].run(host)[0])  # the second row is padded, where the two differ
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("mask", ["none", "bool", "float"])
def test_torchs_own_attention_opened_computes_the_same(batch_first, padded, mask):
    torch.manual_seed(0)
    mha = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    x = torch.randn(3, 5, 8)
    hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
    masks = {"none": None, "bool": hidden, "float": torch.zeros(5, 5).masked_fill(hidden, float("-inf"))}
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]]) if padded else None
    inputs = x if batch_first else x.transpose(0, 1)
    knobs = {"attn_mask": masks[mask], "key_padding_mask": padding, "need_weights": False}
    with torch.no_grad():
        torch.testing.assert_close(
            opened(mha, inputs, inputs, inputs, **knobs)[0], mha(inputs, inputs, inputs, **knobs)[0]
        )
