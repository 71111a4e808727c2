"""PEMA: a distribution beside the host's, learned from its final states alone."""

import torch
from torch import nn
from torch.nn import functional as F

from assembler.adapters.book import adapters_of
from assembler.compile import compile_graph
from components.adapters.pema import Pema
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_matrix import batch_of, graph_of

CASE = HOSTS["llama"]


def with_pema(**options) -> tuple[nn.Module, nn.Module]:
    host = host_of("llama").requires_grad_(False)
    Pema(host="h", **{"rank": 16, **options}).attach(host, "memory", seed=0)
    return host, next(iter(adapters_of(host).inserts("memory").values())).module


@torch.no_grad()
def distribution(host: nn.Module) -> torch.Tensor:
    return CASE.run(host).softmax(-1)


def test_with_no_share_it_is_the_frozen_distribution_and_with_any_it_sums_to_one():
    host, _ = with_pema()
    share, frozen = adapters_of(host).wires("memory")["share"], distribution(host_of("llama"))
    for value in (0.0, 0.3, 0.9):
        share.lay(torch.tensor([value, 0.0]))
        mixed = distribution(host)
        torch.testing.assert_close(mixed.sum(-1), torch.ones(2, 5))
        torch.testing.assert_close(mixed[1], frozen[1], rtol=1e-6, atol=1e-7)
        assert torch.allclose(mixed[0], frozen[0], atol=1e-6) == (value == 0)


def test_it_lowers_the_cross_entropy_and_rebuilds_the_states_without_the_host_learning():
    host, memory = with_pema()
    ids = CASE.batch["input_ids"]
    before = {key: p.clone() for key, p in host.named_parameters() if "memory" not in key}
    optimizer, history = torch.optim.Adam(memory.parameters(), lr=0.02), []
    host.train()
    for _ in range(120):
        optimizer.zero_grad()
        own = host(input_ids=ids).logits
        loss = F.cross_entropy(own[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        (loss + memory.auxiliary_loss).backward()
        optimizer.step()
        history.append((loss.item(), memory.auxiliary_loss.item()))
    assert history[-1][0] < 0.4 * history[0][0]
    assert history[-1][1] < 0.02 * history[0][1]
    assert all(torch.equal(p, before[key]) for key, p in host.named_parameters() if key in before)
    assert all(p.grad is None for key, p in host.named_parameters() if key in before)


def test_a_stage_may_count_the_adapters_loss_alone():
    lm = {"type": "backbone.causal_lm", "arch": "llama", "prompt": "{question} {answer}"}
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    lm["config"] = {**sizes, "num_attention_heads": 4}
    memory = {"type": "adapter.pema", "host": "talk", "rank": 4}
    graph = graph_of({"nodes": {"talk": lm}, "adapters": {"memory": memory}})
    assembly = compile_graph(graph)
    assembly.train_only(["memory"])
    batch, losses = batch_of(graph, 2), {}
    for objectives in (None, ["memory"], ["talk"]):
        assembly.only(objectives)
        losses[str(objectives)] = assembly(**batch)["loss"]
    module = next(m for m in assembly.modules() if hasattr(m, "rebuild"))
    assert 0 < losses["['memory']"] < losses["None"] == losses["['talk']"]
    assembly.only(["memory"])
    assembly.zero_grad()
    assembly(**batch)["loss"].backward()
    assert module.rebuild.weight.grad.any() and module.predict.weight.grad is None
