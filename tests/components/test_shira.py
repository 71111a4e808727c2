"""SHiRA: a sparse change has full rank, touches its entries alone, and is switched in place."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from assembler.adapters.book import adapters_of
from assembler.adapters.files import TENSORS, load_adapter, save_adapter
from assembler.adapters.prepare import Trial
from assembler.errors import AssemblerError
from components.adapters._shira import Sparse, Switch, random_entries, structured_entries
from components.adapters.lora import Lora
from components.adapters.shira import Shira
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_adapters import stir

CASE = HOSTS["llama"]


def with_shira(**options) -> tuple[nn.Module, list[str]]:
    host = host_of("llama")
    return host, Shira(host="h", rank=2, **options).attach(host, "one", seed=0)


def test_as_many_entries_as_lora_of_rank_4_have_full_rank():
    module = Sparse(random_entries((256, 256), 4 * 512, seed=0), (256, 256), 1.0)
    nn.init.normal_(module.values)
    change, _ = module(torch.zeros(256, 256), None)
    assert torch.linalg.matrix_rank(change) == 256
    assert change.count_nonzero() == 4 * 512
    runs = random_entries((256, 256), 4 * 512, seed=0, run=16).view(-1, 16)
    assert len(runs) == 128 and (runs[:, 0] % 16 == 0).all() and (runs.diff(dim=1) == 1).all()


@given(st.integers(2, 20), st.integers(2, 20), st.integers(1, 400))
def test_structured_entries_are_rows_and_the_diagonal_within_the_budget(rows, columns, count):
    if count < min(rows, columns) + columns or count > rows * columns:
        return
    entries = structured_entries((rows, columns), count)
    mask = torch.zeros(rows * columns, dtype=torch.bool).index_fill(0, entries, True).view(rows, columns)
    assert len(entries) == mask.sum() <= count
    assert mask.diagonal().all()
    assert mask.all(1).sum() >= (count - min(rows, columns)) // columns
    assert (mask.all(1) | (mask.sum(1) <= 1)).all()


def test_merged_it_changes_its_entries_alone():
    host, new = with_shira(sites="layers.*.attn.q", seed=3)
    before = host.model.layers[0].self_attn.q_proj.weight.clone()
    stir(host, new)
    at = adapters_of(host).inserts("one")["layers_0_attn_q"].module.indices
    adapters_of(host).merge("one")
    changed = (host.model.layers[0].self_attn.q_proj.weight != before).flatten().nonzero()[:, 0]
    assert changed.tolist() == at.tolist()


@pytest.mark.parametrize("options", [{}, {"mask": "struct"}, {"run": 4}, {"dora": 2}], ids=str)
def test_a_switch_there_and_back_restores_every_bit(options, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    host, new = with_shira(**options, sites="layers.*.mlp.{up,down}")
    new += Shira(host="h", rank=2, seed=1, sites="layers.*.mlp.{up,down}", **options).attach(host, "two", seed=0)
    stir(host, new)
    book, shown = adapters_of(host), {}
    with torch.no_grad():
        for active in ("", "one", "two", "stack(one, two)"):
            book.activate(active)
            shown[active] = CASE.run(host)
        switch = Switch(book, ("one", "two"))
        assert adapters_of(host) is None
        for names, active in ((("one",), "one"), (("two",), "two"), (("one",), "one"), ((), "")):
            switch.to(*names)
            assert torch.equal(CASE.run(host), shown[active])
        if "dora" in options:  # stacked, the second takes the norms of what the first has made
            return
        switch.to("one", "two")
        torch.testing.assert_close(CASE.run(host), shown["stack(one, two)"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_with_dora_its_entries_are_those_of_dora():
    host, new = with_shira(sites="layers.*.attn.q", dora=3)
    twin = host_of("llama")
    stir(host, new)
    masked = adapters_of(host).inserts("one")["layers_0_attn_q"].module
    theirs = Lora(host="h", rank=3, alpha=3, dora=True, sites="layers.0.attn.q").attach(twin, "one", seed=0)
    values = {"lora_A": masked.low.lora_A.weight, "lora_B": masked.low.lora_B.weight, "magnitude": masked.magnitude}
    for key in theirs:
        twin.get_parameter(key).copy_(next(value for name, value in values.items() if name in key))
    weight = twin.model.layers[0].self_attn.q_proj.weight.clone()
    adapters_of(twin).merge("one")
    dense = twin.model.layers[0].self_attn.q_proj.weight.flatten()
    mine, _ = masked(weight, None)
    places = masked.indices
    torch.testing.assert_close(mine.flatten()[places], dense[places], rtol=1e-4, atol=1e-6)
    assert (mine != weight).sum() <= len(places) < weight.numel()


@pytest.mark.parametrize("mask", ["gradient", "snip"])
def test_entries_chosen_on_data_are_those_of_the_largest_score(mask):
    host, _ = with_shira(mask=mask, sites="layers.1.attn.q")
    weight = host.model.layers[1].self_attn.q_proj.weight
    loss = goal_loss(CASE.run(host))
    (gradient,) = torch.autograd.grad(loss, weight)
    host.requires_grad_(False)
    wrapped = Loss(host)
    part = adapters_of(host).part("one")
    part.prepare(Trial(host, "one", None, lambda: [CASE.batch], wrapped))
    scores = (gradient * weight if mask == "snip" else gradient).abs().flatten()
    chosen = adapters_of(host).inserts("one")["layers_1_attn_q"].module.indices
    assert chosen.tolist() == scores.topk(len(chosen)).indices.sort().values.tolist()
    assert part.unprepared()


class Loss(nn.Module):
    """How far what a host gives is from a fixed goal, as a model of a spec gives its loss."""

    def __init__(self, host: nn.Module, output: str = "logits") -> None:
        super().__init__()
        self.host, self.output = host, output

    def forward(self, **batch):
        return {"loss": goal_loss(getattr(self.host(**batch), self.output))}


def goal_loss(output: torch.Tensor) -> torch.Tensor:
    goal = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    return (output - goal).pow(2).mean()


def test_a_file_whose_entries_lie_outside_of_the_weight_is_refused(tmp_path):
    host, _ = with_shira(mask="struct", sites="layers.0.mlp.up")
    save_adapter(host, "one", tmp_path / "file")
    tensors = load_file(tmp_path / "file" / TENSORS)
    key = next(k for k in tensors if k.endswith("indices"))
    tensors[key][0] = 10**9
    save_file(tensors, tmp_path / "file" / TENSORS)
    with pytest.raises(AssemblerError, match="points outside of a weight"):
        load_adapter(host_of("llama"), tmp_path / "file", "one")
