"""MeteoRA: the token's LoRAs, however they are computed, and gates that learn which task is which."""

import pytest
import torch
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.batches import Batches
from assembler.compile import compile_graph
from components.adapters._examples import CONFIG
from components.adapters._lora import LowRank
from components.adapters._meteora import TaskGates
from components.adapters.lora import Lora
from components.adapters.meteora import Meteora
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_matrix import graph_of

CASE = HOSTS["llama"]
ROUTE = "route(a, b, c, by=gate)"


def routed(**options) -> nn.Module:
    host = host_of("llama")
    for seed, name in enumerate("abc"):
        for key in Lora(host="h", rank=2 if options.get("dispatch") else 1 + seed, alpha=4).attach(host, name, seed):
            nn.init.normal_(host.get_parameter(key), std=0.5, generator=torch.Generator().manual_seed(seed))
    Meteora(host="h", **options).attach(host, "gate", 0, composition=ROUTE)
    adapters_of(host).activate(ROUTE)
    return host


def shown(host: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return CASE.run(host)


@pytest.mark.parametrize("dispatch", ["dense", "gather"])
def test_one_lora_a_token_is_that_lora_alone(dispatch):
    host = routed(top=1, dispatch=dispatch)
    book = adapters_of(host)
    for insert in book.inserts("gate").values():
        nn.init.zeros_(insert.module.gate.weight)  # all the same, so that the first is taken
    one = shown(host)
    book.activate("a")
    torch.testing.assert_close(one, shown(host), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_loop_gather_and_dense_form_agree(top):
    torch.manual_seed(0)
    experts = [LowRank(6, 5, 2, scale=0.5 + n) for n in range(3)]
    for expert in experts:
        nn.init.normal_(expert.lora_B.weight)

    class Nothing:
        value = None

    gates, x = TaskGates(6, 3, top, 2.0, 1.0, Nothing(), True), torch.randn(2, 4, 6)
    nn.init.normal_(gates.gate.weight)
    with torch.no_grad():
        which, weights = gates.chosen(x)
        loop = torch.zeros(2, 4, 5)
        for b in range(2):
            for t in range(4):
                for i, g in zip(which[b, t], weights[b, t], strict=True):
                    loop[b, t] += g * experts[i](x[b, t])
        dense = LowRank.together(experts, gates.gates(x), x)
        gathered = LowRank.picked(experts, which, weights, x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4))
    torch.testing.assert_close(dense, loop, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gathered, loop, rtol=1e-5, atol=1e-5)


def test_the_gates_learn_the_task_of_each_row():
    host = routed(top=2).train()
    host.requires_grad_(False)
    book = adapters_of(host)
    mine = [p.requires_grad_(True) for p in book.modules["gate"].parameters()]
    tasks = torch.tensor([2, 0])
    ids = torch.tensor([[5, 9, 3, 17, 21], [7, 2, 8, 30, 4]])
    optimizer = torch.optim.Adam(mine, lr=0.1)
    modules = [insert.module for insert in book.inserts("gate").values()]
    book.wires("gate")["tasks"].lay(tasks)
    for _ in range(80):
        optimizer.zero_grad()
        host(input_ids=ids)
        loss = torch.stack([module.auxiliary_loss for module in modules]).mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    book.wires("gate")["tasks"].lay(torch.tensor([-1, -1]))
    host(input_ids=ids)
    assert all(module.auxiliary_loss == 0 for module in modules)


def test_a_column_of_the_data_says_which_task_a_row_is_of():
    lm = {"type": "backbone.causal_lm", "arch": "llama", "prompt": "{question} {answer}", "config": CONFIG}
    lora = {"type": "adapter.lora", "host": "talk", "rank": 2, "sites": "layers.0.attn.q"}
    gate = {"type": "adapter.meteora", "host": "talk", "loss": 3.0, "rows": {"tasks": "label"}}
    tree = {
        "nodes": {"talk": lm},
        "adapters": {"a": lora, "b": lora, "gate": gate},
        "compose": {"talk": "route(a, b, by=gate)"},
        "data": {"type": "dataset.digits", "options": {"question": "?"}, "columns": {"answer": "word"}},
        "stages": [{"name": "gate", "train": ["gate"]}],
    }
    graph = graph_of(tree)
    assert not graph.problems
    rows = [row for row in graph.dataset.rows(graph.base) if row["label"] < 2][:4]
    batch = Batches(graph)(rows)
    assert batch["gate_tasks"].tolist() == [row["label"] for row in rows]
    assembly = compile_graph(graph)
    assembly.train_only(["gate"])
    assembly.train()
    told = assembly(**batch)["loss"]
    del batch["gate_tasks"]  # as in serving
    assert float(told - assembly(**batch)["loss"]) == pytest.approx(3 * 0.693, abs=0.2)
    wrong = graph_of({**tree, "adapters": {**tree["adapters"], "gate": {**gate, "rows": {"tasks": "lable"}}}})
    assert "no column lable of whole numbers; did you mean label?" in wrong.problems[0].message
