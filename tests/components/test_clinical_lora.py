"""Two LoRAs in one stack: a domain's and a task's over it."""

from pathlib import Path

import torch

from assembler.check import check
from assembler.compile import compile_graph
from assembler.spec import Document, Spec
from components.adapters._examples import on_llama


def assembled(stacked: bool = True):
    tree, _ = on_llama("adapter.lora", None)
    part = tree["adapters"].pop("part")
    tree["adapters"] = {"domain": {**part, "rank": 4}, **({"task": {**part, "rank": 2}} if stacked else {})}
    tree = {"assembler": 1, **tree}
    return compile_graph(check(Spec(Path("x.yaml").resolve(), Document.model_validate(tree), tree)))


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 250, (4, 9), generator=torch.Generator().manual_seed(seed))
    return {"talk_input_ids": ids, "talk_attention_mask": torch.ones_like(ids), "talk_labels": ids[:, -6:]}


def stir(assembly, name):
    with torch.no_grad():
        for key in assembly.of(name):
            assembly.get_parameter(key).normal_(std=0.1)


def test_a_task_adapter_that_is_new_leaves_a_trained_domain_adapter_as_it_answers():
    alone, both = assembled(stacked=False), assembled()
    stir(alone, "domain")
    with torch.no_grad():
        for key in alone.of("domain"):
            both.get_parameter(key).copy_(alone.get_parameter(key))
        assert torch.equal(alone(**batch())["logits"], both(**batch())["logits"])


def test_the_domain_is_learned_first_and_both_receive_gradients_when_both_are_declared():
    assembly = assembled()
    assembly.train_only(["domain"])
    optimizer = torch.optim.Adam([p for p in assembly.parameters() if p.requires_grad], lr=3e-2)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = assembly(**batch())["loss"]
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0] - 0.15
    assert all(assembly.get_parameter(key).grad is None for key in assembly.of("task"))
    assembly.train_only(["domain", "task"])
    stir(assembly, "task")
    assembly(**batch())["loss"].backward()
    assert all(assembly.get_parameter(key).grad.any() for name in ("domain", "task") for key in assembly.of(name))


def test_merged_one_after_the_other_both_stay_in_the_weights():
    from assembler.adapters.book import adapters_of

    assembly = assembled()
    stir(assembly, "domain")
    stir(assembly, "task")
    with torch.no_grad():
        before = assembly(**batch())["logits"]
        for name in ("domain", "task"):
            adapters_of(assembly.nodes["talk"]).merge(name)
        torch.testing.assert_close(assembly(**batch())["logits"], before, rtol=1e-4, atol=1e-5)
