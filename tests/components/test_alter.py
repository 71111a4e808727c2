"""The mixture of task adapters: first each task's adapter alone, then a gate among them."""

import pytest
import torch
from pydantic import ValidationError

from assembler.adapters.book import adapters_of
from components.adapters._bottleneck import Bottleneck
from components.adapters._mixture_of_task_adapters import Mixture
from components.adapters.mixture_of_task_adapters import MixtureOfTaskAdapters
from tests.conformance.hosts import HOSTS, host_of


@torch.no_grad()
def test_it_is_the_gated_sum_of_bottlenecks_and_one_of_them_for_a_row_that_is_told():
    torch.manual_seed(0)
    mixture = Mixture(6, 4, 3, "gelu", None, None)
    mixture.ids = lambda: told
    for p in mixture.parameters():
        torch.nn.init.normal_(p)
    singles = []
    for k in range(3):
        one = Bottleneck(6, 4, "gelu")
        one.down.weight.copy_(mixture.down[k]), one.down.bias.copy_(mixture.down_bias[k])
        one.up.weight.copy_(mixture.up[k]), one.up.bias.copy_(mixture.up_bias[k])
        singles.append(one)
    x = torch.randn(2, 5, 6)
    gates = mixture.gate(x).softmax(-1)
    told = torch.tensor([-1])
    torch.testing.assert_close(mixture(x), sum(gates[..., k : k + 1] * one(x) for k, one in enumerate(singles)))
    told = torch.tensor([2, 0])
    expected = torch.stack([singles[2](x[0]), singles[0](x[1])])
    torch.testing.assert_close(mixture(x), expected)


@torch.no_grad()
def test_only_the_largest_gates_count():
    mixture = Mixture(6, 4, 4, "gelu", 2, None)
    mixture.ids = lambda: torch.tensor([-1])
    gates = mixture.gates(torch.randn(2, 5, 6))
    assert ((gates > 0).sum(-1) == 2).all()
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 5))


def test_alone_a_tasks_adapter_learns_and_the_others_and_the_gate_do_not():
    case, host = HOSTS["llama"], host_of("llama").requires_grad_(False)
    part = MixtureOfTaskAdapters(host="host", tasks=3, size=4, task=1)
    mine = {key: host.get_parameter(key).requires_grad_(True) for key in part.attach(host, "mix", seed=0)}
    case.run(host).pow(2).sum().backward()
    for key, p in mine.items():
        if "up" in key:
            assert p.grad[1].any() and not p.grad[[0, 2]].any()
        elif "gate" in key:
            assert not p.grad.any()
    adapters_of(host).wires("mix")["ids"].lay(torch.tensor([0, -1]))
    [setattr(p, "grad", None) for p in mine.values()]
    case.run(host).pow(2).sum().backward()
    assert all(p.grad[2].any() for key, p in mine.items() if key.endswith(".up"))


def test_after_both_stages_the_gate_tells_the_tasks_apart_by_itself():
    """Four tasks, each with a linear map of its own; the task shows in the tokens' first numbers."""
    torch.manual_seed(0)
    told = torch.tensor([-1])
    mixture = Mixture(8, 8, 4, "gelu", None, None)
    mixture.ids = lambda: told
    task = torch.arange(4).repeat(16)
    x = torch.randn(64, 3, 8)
    x[..., :4] += 3 * torch.nn.functional.one_hot(task, 4).unsqueeze(1)
    goal = torch.einsum("bti,bio->bto", x[..., 4:], torch.randn(4, 4, 8)[task])

    def train(steps: int) -> float:
        optimizer = torch.optim.Adam(mixture.parameters(), lr=0.03)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (mixture(x) - goal).pow(2).mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    told = task
    assert train(60) < 0.05 * goal.var()
    told = torch.tensor([-1])
    assert train(60) < 0.2 * goal.var()
    with torch.no_grad():
        chosen = mixture.gates(x).mean(1).argmax(-1)
    assert (chosen == task).float().mean() > 0.9


@pytest.mark.parametrize("options", [{"task": 3}, {"top_k": 4}])
def test_more_than_there_are_is_refused(options):
    with pytest.raises(ValidationError, match="there are 3 `tasks`"):
        MixtureOfTaskAdapters(host="host", tasks=3, **options)
