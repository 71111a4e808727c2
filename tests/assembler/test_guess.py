"""Hosts that no table describes: an anatomy written in the spec, and one that is guessed and says what it took."""

import re

import pytest
import torch
from torch import Tensor, nn

from assembler.adapters.book import adapters_of
from assembler.anatomy import describe, described, places_of
from assembler.compile import compile_graph
from assembler.errors import AssemblerError
from assembler.guess import guessed
from components.adapters.houlsby import Houlsby
from components.adapters.lora import Lora
from tests.conformance.hosts import host_of
from tests.conformance.test_matrix import batch_of, graph_of


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LayerNorm(16)
        self.mixing_attention = nn.ModuleDict({n: nn.Linear(16, 16) for n in ("query", "key", "value", "out")})
        self.second = nn.LayerNorm(16)
        self.ffn = nn.Sequential(nn.Linear(16, 40), nn.GELU(), nn.Linear(40, 16))

    def forward(self, x: Tensor) -> Tensor:
        y, parts = self.first(x), self.mixing_attention
        q, k, v = (parts[n](y) for n in ("query", "key", "value"))
        x = x + parts["out"](nn.functional.scaled_dot_product_attention(q, k, v))
        return x + self.ffn(self.second(x))


class Strange(nn.Module):
    """A transformer that nobody has a table for."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.steps = nn.Embedding(30, 16), nn.ModuleList(Block() for _ in range(3))
        self.norm, self.out = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for step in self.steps:
            x = step(x)
        return self.out(self.norm(x))


IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "vit", "timm", "ast", "wav2vec2"])
def test_what_is_guessed_of_known_hosts_is_what_their_tables_say(family):
    host = host_of(family)
    table = places_of(host)
    describe(host, guessed(host).anatomy)
    own = places_of(host)
    # A table may take more or less for the module of attention; the leaves are what adapters change.
    leaves = {site for site in own if re.search(r"\.(q|k|v|o|qkv|up|gate|down)$|embed$|head$|^final$", site)}
    assert {site: own[site] for site in leaves} == {site: table[site] for site in leaves if site in table}
    assert {site for site in table if re.search(r"\.(q|k|v|up|down)$", site)} <= leaves


def test_a_strange_host_is_adapted_by_a_guess_that_says_what_it_took():
    torch.manual_seed(0)
    host = Strange().eval()
    with pytest.raises(AssemblerError, match="no anatomy fits Strange"):
        Lora(host="h").attach(host, "tune", 0)
    guess = guessed(host)
    assert "layers: steps (3 of Block)" in guess.report
    assert "attn.q: mixing_attention.query [16, 16]" in guess.report
    describe(host, guess.anatomy)
    before = host(IDS)
    Lora(host="h", sites="layers.*.{attn.{q,k,v,o},mlp.{up,down}}").attach(host, "tune", 0)
    Houlsby(host="h", size=2, init="zero").attach(host, "serial", 0)
    assert torch.equal(host(IDS), before)
    assert {"embed", "final", "head"} <= set(places_of(host))
    adapters_of(host).remove("tune")
    adapters_of(host).remove("serial")
    assert torch.equal(host(IDS), before)


def test_an_anatomy_in_the_spec_wins_and_is_checked():
    rows = {"embed": "words", "layers.{i}": "steps.{i}", "layers.{i}.attn.q": "steps.{i}.mixing_attention.query"}
    host = Strange()
    describe(host, described("mine", rows))
    assert set(places_of(host)) == {"embed"} | {f"layers.{i}{tail}" for i in range(3) for tail in ("", ".attn.q")}
    with pytest.raises(AssemblerError, match=r"anatomy: layers\.\{i\}\.attn\.q: .* is no module of Strange"):
        describe(Strange(), described("mine", {**rows, "layers.{i}.attn.q": "steps.{i}.attention.query"}))
    with pytest.raises(AssemblerError, match=r"'a\[3/3\]' is no place"):
        described("mine", {"embed": "a[3/3]"})


VIT = {"type": "encoder.timm", "model": "test_vit"}
PHOTO = {"type": "input.image", "size": [32, 32]}


@pytest.mark.parametrize(
    "anatomy",
    [
        "guess",
        {
            "layers.{i}": "tower.blocks.{i}",
            "layers.{i}.attn": "tower.blocks.{i}.attn",
            "layers.{i}.attn.q": "tower.blocks.{i}.attn.qkv[0/3]",
            "layers.{i}.attn.out": "tower.blocks.{i}.drop_path1:out",
        },
    ],
)
def test_a_node_with_an_anatomy_takes_adapters_by_it(anatomy):
    tune = {"type": "adapter.lora", "host": "eyes", "sites": "layers.*.attn.q", "rank": 2}
    tree = {"nodes": {"photo": PHOTO, "eyes": {**VIT, "anatomy": anatomy}}, "edges": ["photo -> eyes"]}
    graph = graph_of({**tree, "adapters": {"tune": tune}})
    assembly = compile_graph(graph)
    assert len(assembly.of("tune")) == 12
    assert assembly.values(batch_of(graph, 2))["eyes"].isfinite().all()


def test_an_anatomy_that_is_wrong_is_located():
    tree = {"nodes": {"photo": PHOTO, "eyes": {**VIT, "anatomy": {"embed": "nowhere"}}}, "edges": ["photo -> eyes"]}
    with pytest.raises(AssemblerError, match=r"yaml:\d+:\d+: nodes.eyes: anatomy: embed: .*nowhere"):
        compile_graph(graph_of(tree))
