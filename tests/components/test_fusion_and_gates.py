"""AdapterFusion and LLaMA-Adapter on toy tasks: what learns, in which order, and what stays."""

import torch
from torch import nn

from assembler.adapters.book import adapters_of
from components.adapters.fusion import Fusion
from components.adapters.llama_adapter import LlamaAdapter
from components.adapters.parallel import Parallel
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["bert"]


def taught(host: nn.Module, names: list[str], goal: torch.Tensor, steps: int = 40, lr: float = 0.02) -> float:
    """The last loss of learning a goal with the parameters named."""
    host.requires_grad_(False)
    chosen = [p.requires_grad_(True) for key, p in host.named_parameters() if key in names]
    optimizer = torch.optim.Adam(chosen, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (CASE.run(host) - goal).pow(2).mean()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_a_fusion_takes_the_adapter_that_serves_and_leaves_both_as_they_are():
    host = host_of("bert")
    generator = torch.Generator().manual_seed(0)
    goals = [torch.randn(CASE.run(host).shape, generator=generator) for _ in range(2)]
    names = {n: Parallel(host="h", size=8, layers=[-1]).attach(host, n, i) for i, n in enumerate(("one", "two"))}
    book = adapters_of(host)
    for name, goal in zip(names, goals, strict=True):
        book.activate(name)
        taught(host, names[name], goal)
    frozen = {key: p.clone() for key, p in book.modules.named_parameters()}
    composition = "fuse(one, two, by=mix)"
    mix = Fusion(host="h").attach(host, "mix", 3, composition=composition)
    book.activate(composition)
    taught(host, mix, goals[1], steps=60)
    scores, module = [], book.modules["mix"].get_submodule("layers_1_mlp_out")

    def watch(_, args, __):
        changes, own = torch.stack(args[0], -2), args[1]
        scores.append((module.key(changes) @ module.query(own).unsqueeze(-1)).squeeze(-1).softmax(-1))

    with torch.no_grad():
        handle = module.register_forward_hook(watch)
        CASE.run(host)
        handle.remove()
    assert scores[0][..., 1].mean() > 0.9
    assert all(torch.equal(p, frozen[key]) for key, p in book.modules.named_parameters() if key in frozen)


def test_the_first_step_moves_gates_alone():
    host = host_of("llama").requires_grad_(False)
    new = LlamaAdapter(host="h", length=3).attach(host, "tune", 0)
    mine = {key: p for key, p in host.named_parameters() if key in new}
    HOSTS["llama"].run(host).pow(2).sum().backward()
    moved = {key for key, p in mine.items() if p.grad.any()}
    assert moved == {key for key in mine if key.endswith("gate")}
