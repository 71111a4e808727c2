"""Adapters find their places in encoders of expression."""

from pathlib import Path

import pytest
import torch

from assembler.anatomy import resolve
from assembler.check import check
from assembler.compile import compile_graph
from assembler.ragged import parted
from assembler.spec import Document, Spec

SMALL = {
    "scmamba": {"type": "encoder.scmamba", "width": 16, "depth": 2, "state": 4},
    "ranked": {"type": "encoder.gene_transformer", "width": 16, "depth": 2, "heads": 2, "hidden": 24, "length": 8},
}
SMALL["binned"] = {**SMALL["ranked"], "tokens": "binned"}
SITES = {"scmamba": "layers.*.mixer.{x,gate,o}", "ranked": "layers.*.attn.{q,v}", "binned": "layers.*.mlp.{up,down}"}


def compiled(name: str, adapters: dict):
    nodes = {
        "cell": {"type": "input.expression", "genes": [f"G{i}" for i in range(9)], "normalise": "none"},
        "reads": SMALL[name],
    }
    tree = {"assembler": 1, "nodes": nodes, "edges": ["cell -> reads"], "adapters": adapters}
    return compile_graph(check(Spec(Path("cells.yaml").resolve(), Document.model_validate(tree), tree)))


@pytest.mark.parametrize("name", SMALL)
def test_its_blocks_and_what_is_in_them_are_sites(name):
    module = compiled(name, {}).nodes["reads"]
    assert len(resolve(module, SITES[name])) == 2 * (SITES[name].count(",") + 1)
    assert len(resolve(module, "layers.*")) == 2


@pytest.mark.parametrize("name", SMALL)
def test_an_untrained_lora_changes_no_bit_and_a_moved_one_does(name):
    cells = torch.rand(3, 9, generator=torch.Generator().manual_seed(0))
    plain = compiled(name, {})
    adapted = compiled(name, {"tune": {"type": "adapter.lora", "host": "reads", "sites": SITES[name], "rank": 2}})

    def read(assembly) -> torch.Tensor:
        with torch.no_grad():
            return parted(assembly.values({"cell": cells})["reads"])[0]

    before = read(adapted)
    assert torch.equal(before, read(plain))
    with torch.no_grad():
        for key in adapted.adapters["tune"]:
            adapted.get_parameter(key).add_(0.1)
    assert not torch.equal(before, read(adapted))
