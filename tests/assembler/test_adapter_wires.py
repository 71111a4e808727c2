"""An adapter reads another node's tokens through a wire: checked, run, trained and exported with its graph."""

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from assembler import registry
from assembler.adapters.book import adapters_of
from assembler.check import check
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.part import AdapterPart
from assembler.spec import Document, Spec
from tests.conformance.test_matrix import batch_of, graph_of


class Listener(nn.Module):
    def __init__(self, wire, source: int, width: int) -> None:
        super().__init__()
        self.wire, self.up = wire, nn.Linear(source, width)

    def forward(self, value: Tensor) -> Tensor:
        return self.up(self.wire().mean(1, keepdim=True)) + 0 * value


class Listen(AdapterPart):
    """mean_t(W s_t) is added to the stream. Parameters: d_s * d + d."""

    type = "adapter.listen"
    accepts: ClassVar = {"sound": ("tokens",)}

    def inject(self, on) -> None:
        last = on.layers()[-1]
        wire = on.wire("sound")
        last.branch(Listener(wire, on.inputs["sound"]["width"], last.width()), "out")


@pytest.fixture(autouse=True)
def listen(monkeypatch):
    registry.parts()
    monkeypatch.setitem(registry._parts, "adapter.listen", Listen)


VIT = {"type": "encoder.timm", "model": "test_vit"}
IMAGE = {"type": "input.image", "size": [32, 32]}
TREE = {
    "nodes": {"left": IMAGE, "right": IMAGE, "eyes": VIT, "other": VIT},
    "edges": ["left -> eyes", "right -> other", "other -> tune.sound"],
    "adapters": {"tune": {"type": "adapter.listen", "host": "eyes"}},
}


def test_the_host_waits_for_what_its_adapter_reads_and_gradients_go_back_through_the_wire():
    graph = graph_of(TREE)
    assert not graph.problems
    assert graph.order.index("other") < graph.order.index("eyes")
    assembly = compile_graph(graph)
    batch = batch_of(graph, 2)
    values = assembly.values(batch)
    changed = {**batch, "right": batch["right"] + 1}
    assert not torch.equal(assembly.values(changed)["eyes"], values["eyes"])
    values["eyes"].pow(2).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in assembly.nodes["other"].parameters())
    assert set(graph.ancestors("eyes")) == {"left", "right", "eyes", "other"}


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (["left -> eyes", "right -> other"], "adapters.tune: nothing is wired to `sound`, which takes tokens"),
        (["left -> eyes", "right -> other", "right -> tune.sound"], "tune.sound takes tokens"),
        (["left -> eyes", "right -> other", "other -> tune.noise"], "has no input noise; it has sound"),
        (["left -> eyes", "right -> other", "other -> tone.sound"], "there is no node tone; did you mean tune?"),
        (["left -> eyes", "eyes -> other", "eyes -> tune.sound"], "is a circle"),
    ],
)
def test_a_wire_that_does_not_fit_is_a_located_problem(edges, said):
    messages = [problem.message for problem in graph_of({**TREE, "edges": edges}).problems]
    assert any(said in message for message in messages), messages


def test_a_host_run_outside_its_graph_says_so():
    graph = graph_of(TREE)
    assembly = compile_graph(graph)
    assert adapters_of(assembly.nodes["eyes"]) is not None
    with pytest.raises(AssemblerError, match="nothing came over the wire into sound"):
        assembly.nodes["eyes"](torch.zeros(1, 3, 32, 32))


def test_a_spec_without_adapters_is_untouched():
    tree = {"assembler": 1, **TREE, "adapters": {}, "edges": TREE["edges"][:2]}
    assert not check(Spec(Path("x.yaml"), Document.model_validate(tree), tree)).problems
