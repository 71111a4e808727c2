"""Visual tokens in every layer of an LM."""

import torch

from assembler.adapters.book import adapters_of
from components.adapters.layerwise_visual import LayerwiseVisual
from tests.conformance.test_matrix import assembled, batch_of, value_of


def test_the_answer_comes_to_depend_on_the_picture_and_starts_as_the_bare_lms():
    tree, _ = LayerwiseVisual.examples()[0]
    graph, assembly = assembled(tree)
    batch = batch_of(graph, 2)
    other = {**batch, "photo": batch["photo"].flip(0)}
    with torch.no_grad():
        adapted = value_of(assembly, batch, "talk")
        adapters_of(assembly.nodes["talk"]).activate("")
        assert torch.equal(value_of(assembly, batch, "talk"), adapted)
        adapters_of(assembly.nodes["talk"]).activate("part")
    assembly.train_only(["part"])
    optimizer = torch.optim.Adam([p for p in assembly.parameters() if p.requires_grad], lr=0.02)
    goal = torch.randn_like(adapted)
    for _ in range(3):
        optimizer.zero_grad()
        (value_of(assembly, batch, "talk") - goal).pow(2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert not torch.allclose(value_of(assembly, batch, "talk"), value_of(assembly, other, "talk"), atol=1e-5)


def test_each_layer_has_as_many_tokens_whatever_the_size_of_the_picture():
    shapes = set()
    for size in (32, 64):
        tree, _ = LayerwiseVisual.examples()[0]
        tree["nodes"]["photo"]["size"] = [size, size]
        graph, assembly = assembled(tree)
        with torch.no_grad():
            assembly.features("talk", batch_of(graph, 2))
            modules = [m for m in assembly.modules() if type(m).__name__ == "Resampled"]
            shapes |= {module.tokens().shape for module in modules}
    assert shapes == {(2, 3, 32)} and len(modules) == 2
