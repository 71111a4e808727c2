"""MultiWay-Adapter: a bottleneck for each sense."""

import pytest
import torch

from assembler.errors import AssemblerError
from components.adapters.multiway import Multiway
from components.encoders.clipseg import ClipSeg
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_matrix import assembled, batch_of


@pytest.mark.parametrize(("split", "reached"), [(2, {"vision", "text"}), (5, {"vision"}), (0, {"text"})])
def test_the_tokens_of_a_sense_reach_its_bottleneck_alone(split, reached):
    case, host = HOSTS["vit"], host_of("vit").requires_grad_(False)  # five tokens
    part = Multiway(host="host", size=4, sense="both", split=split, dropout=0.0)
    mine = {key: host.get_parameter(key).requires_grad_(True) for key in part.attach(host, "tune", seed=0)}
    case.run(host).pow(2).sum().backward()
    touched = {key.split(".")[-3] for key, p in mine.items() if ".up." in key and p.grad is not None and p.grad.any()}
    assert touched & {"vision", "text"} == reached


@torch.no_grad()
def test_towers_that_are_named_have_their_own_sense_and_nothing_changes_at_first():
    tree, _ = ClipSeg.examples()[0]
    graph, assembly = assembled(tree)
    batch = batch_of(graph, 2)
    bare, tower = assembly.values(batch)["part"], assembly.nodes["part"]
    keys = Multiway(host="part", size=4, enhancer=4, sense="both").attach(tower, "tune", seed=0)
    assert not any(".vision." in key or ".text." in key for key in keys)
    assert torch.equal(assembly.values(batch)["part"], bare)


def test_a_host_that_decodes_word_by_word_has_no_split():
    with pytest.raises(AssemblerError, match="word by word"):
        Multiway(host="host", sense="both", split=2).attach(host_of("llama"), "tune", seed=0)
