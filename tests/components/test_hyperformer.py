"""HyperFormer: the counts of the paper on T5, and tasks that one network serves apart."""

import pytest
import torch
import transformers as tf
from torch import nn

from assembler.adapters.book import adapters_of
from components.adapters.hyperformer import Hyperformer
from components.adapters.parallel import Parallel
from tests.conformance.hosts import HOSTS, host_of

T5_BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
T5_SMALL = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}


@pytest.mark.parametrize(
    ("config", "shared", "figure"),
    [(T5_BASE, True, 5_211_056), (T5_BASE, False, 122_327_168), (T5_SMALL, True, 2_415_776)],
)
def test_counts(config, shared, figure):
    with torch.device("meta"):
        host = tf.T5ForConditionalGeneration(tf.T5Config(**config))
    new = Hyperformer(host="h", tasks=8, shared=shared).attach(host, "tune", 0)
    sizes = {key: parameter.numel() for key, parameter in host.named_parameters()}
    assert sum(sizes[key] for key in new) == figure


def goals(ids: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Task 0 wants one direction in every token, task 1 the opposite."""
    return torch.where(ids[:, None, None] == 0, direction, -direction)


@pytest.mark.parametrize("hyper", [True, False])
def test_opposite_tasks_are_solved_by_one_hypernetwork_and_not_by_one_adapter(hyper):
    host = host_of("bert").requires_grad_(False)
    options = {"tasks": 2, "embedding": 8, "inner": 16, "reduction": 2, "norms": False}
    part = Hyperformer(host="h", **options) if hyper else Parallel(host="h", size=8)
    new = part.attach(host, "tune", 0)
    ids = torch.tensor([0, 1])
    if hyper:
        adapters_of(host).wires("tune")["ids"].lay(ids)
    batch = {"input_ids": torch.tensor([[5, 9, 3, 17, 21]] * 2)}
    direction = torch.randn(16, generator=torch.Generator().manual_seed(0)).sign()
    direction -= direction.mean()
    direction /= direction.std()
    optimizer = torch.optim.Adam([p for key, p in host.named_parameters() if key in new], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(HOSTS["bert"].out(host(**batch)), goals(ids, direction).expand(-1, 5, -1))
        loss.backward()
        optimizer.step()
    assert (loss.item() < 0.5) is hyper


def test_one_more_task_is_one_more_vector():
    counts = []
    for tasks in (2, 3):
        host = host_of("bert")
        Hyperformer(host="h", tasks=tasks, embedding=8, inner=16, reduction=4).attach(host, "tune", 0)
        counts.append(sum(p.numel() for p in host.adapters.parameters()))
    assert counts[1] - counts[0] == 8
