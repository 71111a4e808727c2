"""AdapterBias: one direction, a length for each token."""

import torch

from components.adapters._adapter_bias import TokenShift
from components.adapters.adapter_bias import AdapterBias
from tests.conformance.hosts import HOSTS, host_of


def test_the_tokens_are_all_shifted_along_one_direction():
    shift = TokenShift(torch.nn.Linear(12, 1), 6)
    torch.nn.init.normal_(shift.direction)
    change = shift(torch.randn(2, 5, 12)).flatten(0, 1)
    assert torch.linalg.matrix_rank(change) == 1 and change.std(0).min() > 0


def test_the_norm_after_each_mlp_learns_in_bert_and_only_there():
    counts = {}
    for family in ("bert", "llama"):
        host = host_of(family)
        names = AdapterBias(host="host").attach(host, "tune", seed=0)
        counts[family] = sum(host.get_parameter(name).numel() for name in names)
    assert counts == {"bert": 2 * (16 + 24 + 1) + 2 * 2 * 16, "llama": 2 * (16 + 24 + 1)}


def test_it_reaches_furthest_for_the_token_that_decides():
    """Sentences of six of twenty words, of which word 0 is the trigger; what is added to them is all that is read."""
    torch.manual_seed(0)
    words, reader, shift = torch.randn(20, 64), torch.randn(8), TokenShift(torch.nn.Linear(64, 1), 8)
    ids = torch.randint(1, 20, (128, 6))
    ids[::2, 2] = 0
    labels = (ids == 0).any(1).float()
    optimizer = torch.optim.Adam(shift.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        score = shift(words[ids]).mean(1) @ reader - 1
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score, labels)
        loss.backward()
        optimizer.step()
    size = shift.size(words)[:, 0].abs()
    assert loss.item() < 0.1 and size[0] > 2 * size[1:].max()


def test_shared_it_has_one_map_for_all_layers():
    host = host_of("bert")
    names = AdapterBias(host="host", shared=True, norms=False).attach(host, "tune", seed=0)
    assert sum(host.get_parameter(name).numel() for name in names) == 2 * 16 + 24 + 1
    assert HOSTS["bert"].run(host).isfinite().all()
