"""The forecast of a step is what torch accounts for when the step is run."""

from pathlib import Path

import pytest

from assembler.check import check
from assembler.compile import compile_graph
from assembler.forecast import fake, forecast, summary
from benchmarks.memory import SPECS, forecast_peak, graph_of, measured_peak

GALLERY = Path(__file__).parents[2] / "exports" / "gallery"


@pytest.mark.parametrize("name", SPECS)
def test_the_memory_of_a_step_is_within_fifteen_percent_of_the_profilers_peak(name):
    graph = graph_of(name)
    assert forecast_peak(graph) == pytest.approx(measured_peak(graph), rel=0.15)


def test_a_larger_batch_needs_more_and_costs_proportionally_more_operations():
    graph = graph_of("everything learns")
    assembly = compile_graph(graph, device="meta")
    (stage,) = graph.document.stages
    small, large = (forecast(graph, assembly, stage.model_copy(update={"batch": n})) for n in (4, 8))
    assert large["flops"] == 2 * small["flops"]
    assert large["activations_bytes"] == pytest.approx(2 * small["activations_bytes"], rel=0.05)
    assert small["weights_bytes"] == large["weights_bytes"]


def test_the_model_is_as_it_was_after_a_forecast():
    graph = graph_of("LoRA and a head on a ViT")
    assembly = compile_graph(graph)
    before = {key: (id(p), p.requires_grad) for key, p in assembly.named_parameters()}
    forecast(graph, assembly, graph.document.stages[0])
    assert {key: (id(p), p.requires_grad) for key, p in assembly.named_parameters()} == before
    with fake(assembly):
        assert all(type(p.data).__name__ == "FakeTensor" for p in assembly.parameters())
    assert not any(type(p.data).__name__ == "FakeTensor" for p in assembly.parameters())


def test_the_summary_has_the_documented_keys():
    report = summary(check(GALLERY / "siglip-whisper-llama3.yaml"))
    assert report["nodes"]["talk"]["parameters"] == 8_030_261_248
    assert report["adapters"]["tune"] == {"parameters": 3_407_872, "trainable": 0}
    assert report["total"] == sum(
        row["parameters"] for row in [*report["nodes"].values(), *report["adapters"].values()]
    )
    assert report["wires"]["see -> talk.photo"] == "tokens [batch, 729, 4096]"
    assert report["tokens"]["talk"] == 729 + 1500
    stage = summary(graph_of("everything learns"))["stages"]["run"]
    assert stage["trainable"] > 0 and stage["memory_bytes"] > 0 and stage["flops"] > 0
