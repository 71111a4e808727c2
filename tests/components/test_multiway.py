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


def test_two_hosts_share_the_enhancers_of_one_which_both_teach():
    tower = {"type": "encoder.timm", "model": "test_vit"}
    nodes = {"photo": {"type": "input.image", "size": [32, 32]}, "eyes": tower, "read": tower}
    nodes["match"] = {"type": "objective.contrastive"}
    adapter = {"type": "adapter.multiway", "size": 4, "enhancer": 4, "dropout": 0.0, "init": "default"}
    adapters = {"vision": {**adapter, "host": "eyes"}, "text": {**adapter, "host": "read", "share": "vision"}}
    edges = ["photo -> eyes", "photo -> read", "eyes -> match.first", "read -> match.second"]
    graph, assembly = assembled({"nodes": nodes, "edges": edges, "adapters": adapters})
    senses = 6 * (2 * 64 * 4 + 4 + 64)
    sizes = {key: p.numel() for key, p in assembly.named_parameters()}
    assert [sum(sizes[key] for key in assembly.of(name)) for name in adapters] == [2 * senses, senses]
    batch = batch_of(graph, 2)
    key = next(key for key in assembly.of("vision") if "layers_0_out" in key and key.endswith("up.bias"))
    before = assembly.values(batch)["read"]
    with torch.no_grad():
        assembly.get_parameter(key).add_(1.0)
    assert not torch.allclose(assembly.values(batch)["read"], before)
    assembly.values(batch)["read"].sum().backward()
    assert assembly.get_parameter(key).grad.any()
    with pytest.raises(AssemblerError, match=r"adapters.text: `share: film` is no adapter.multiway"):
        assembled(
            {"nodes": nodes, "edges": edges, "adapters": {**adapters, "text": {**adapters["text"], "share": "film"}}}
        )
