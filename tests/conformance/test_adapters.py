"""The laws of adapters, which every registered adapter part keeps on every family of hosts that it claims."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import DynamicCache

from assembler.adapters.book import Book, adapters_of
from assembler.adapters.files import TENSORS, load_adapter, save_adapter
from assembler.adapters.tap import Tap
from assembler.caching import cache_argument
from assembler.errors import AssemblerError
from assembler.part import AdapterPart
from assembler.registry import parts
from tests.conformance.hosts import HOSTS, HostCase, host_of

ADAPTERS = {name: cls for name, cls in parts().items() if issubclass(cls, AdapterPart) and cls.trait != "mixer"}
CASES = [
    pytest.param(name, family, id=f"{name}-{family}")
    for name, cls in ADAPTERS.items()
    for family in HOSTS
    if cls.families is None or family in cls.families
]
every_case = pytest.mark.parametrize(("name", "family"), CASES)
FIRST = {str(case.values[0]): case for case in reversed(CASES)}
once = pytest.mark.parametrize(("name", "family"), list(FIRST.values()))
merging = pytest.mark.parametrize(
    ("name", "family"), [case for case in CASES if ADAPTERS[str(case.values[0])].mergeable]
)


def part_of(name: str) -> AdapterPart:
    """The part with the options of the matrix that fit every host."""
    cls = ADAPTERS[name]
    return cls.model_validate({"host": "host", **cls.small()})


def adapted(name: str, family: str) -> tuple[HostCase, nn.Module, list[str]]:
    """A host with the adapter `tune`, untrained, and the names of its parameters."""
    case, host = HOSTS[family], host_of(family)
    return case, host, part_of(name).attach(host, "tune", seed=1)


def book_on(host: nn.Module) -> Book:
    book = adapters_of(host)
    assert book is not None
    return book


@torch.no_grad()
def stir(host: nn.Module, names: list[str], by: float = 0.05) -> None:
    """Stand in for training: move the named parameters."""
    generator = torch.Generator().manual_seed(3)
    for key, parameter in host.named_parameters():
        if key in names:
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))


@torch.no_grad()
def shown(case: HostCase, host: nn.Module) -> Tensor:
    return case.run(host)


@every_case
def test_untrained_it_is_the_identity_where_its_paper_says_so(name, family):
    if not ADAPTERS[name].identity:
        pytest.skip("its paper starts elsewhere")
    case, host, _ = adapted(name, family)
    assert torch.equal(shown(case, host), shown(case, host_of(family)))


@every_case
def test_taken_off_it_leaves_the_host_as_it_was(name, family):
    case, host = HOSTS[family], host_of(family)
    before, modules = shown(case, host), dict(host.named_modules())
    configs = {path: vars(m).get("config") for path, m in modules.items()}
    state = {key: tensor.clone() for key, tensor in host.state_dict().items()}
    stir(host, part_of(name).attach(host, "tune", seed=1))
    changed = shown(case, host)
    assert not torch.equal(changed, before)
    book_on(host).activate("")
    assert torch.equal(shown(case, host), before)
    book_on(host).activate("tune")
    assert torch.equal(shown(case, host), changed)
    book_on(host).remove("tune")
    assert torch.equal(shown(case, host), before)
    assert dict(host.named_modules()) == modules
    assert all(vars(m).get("config") is configs[path] for path, m in modules.items())
    assert not any(isinstance(vars(m).get("forward"), Tap) for m in modules.values())
    assert all(torch.equal(tensor, state[key]) for key, tensor in host.state_dict().items())


@every_case
def test_it_learns_with_all_its_weights_and_the_host_stands_still(name, family):
    case, host = HOSTS[family], host_of(family)
    host.requires_grad_(False)
    frozen = {key: parameter.clone() for key, parameter in host.named_parameters()}
    learning = part_of(name).attach(host, "tune", seed=1)
    mine = {key: p for key, p in host.named_parameters() if p.requires_grad}
    assert sorted(mine) == sorted(learning)
    optimizer, reached, losses = torch.optim.Adam(mine.values(), lr=0.01), set(), []
    goal = torch.randn(shown(case, host).shape, generator=torch.Generator().manual_seed(2))
    for _ in range(5):
        optimizer.zero_grad()
        loss = (case.run(host) - goal).pow(2).mean() + auxiliary(host)
        loss.backward()
        losses.append(loss.item())
        if len(losses) <= 2:  # what starts at zero passes a gradient on in the second step
            reached |= {key for key, p in mine.items() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert reached == set(learning)
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[key]) for key, p in host.named_parameters() if key in frozen)


def auxiliary(host: nn.Module) -> Tensor:
    """The losses that modules add of their own accord in training."""
    found = [m.auxiliary_loss for m in host.modules() if getattr(m, "auxiliary_loss", None) is not None]
    return torch.stack(found).sum() if found else torch.zeros(())


@once
def test_saved_and_loaded_it_computes_the_same_bits(name, family, tmp_path):
    case, host, names = adapted(name, family)
    stir(host, names)
    save_adapter(host, "tune", tmp_path / "file")
    other = host_of(family)
    load_adapter(other, tmp_path / "file", "again")
    assert torch.equal(shown(case, other), shown(case, host))


@once
def test_a_file_that_does_not_fit_is_refused_and_the_host_stays_as_it_was(name, family, tmp_path):
    case, host, _ = adapted(name, family)
    save_adapter(host, "tune", tmp_path / "file")
    tensors = load_file(tmp_path / "file" / TENSORS)
    key = sorted(tensors)[0]
    bare, before = host_of(family), shown(case, host_of(family))
    for change in (
        {key: tensors[key][..., :-1].contiguous()},
        {key: tensors[key] / 0},
        {"stranger": tensors[key].clone()},
    ):
        save_file({**tensors, **change}, tmp_path / "file" / TENSORS)
        with pytest.raises(AssemblerError, match=r"file"):
            load_adapter(bare, tmp_path / "file", "again")
        assert adapters_of(bare) is None and torch.equal(shown(case, bare), before)


@merging
def test_merged_it_computes_what_it_did_unmerged(name, family):
    case, host, names = adapted(name, family)
    stir(host, names)
    before, plain = shown(case, host), {key for key, _ in host_of(family).named_parameters()}
    book_on(host).merge("tune")
    torch.testing.assert_close(shown(case, host), before, rtol=1e-5, atol=1e-5)
    new = {key for key, _ in host.named_parameters()} - plain  # a linear without a bias may be given one
    assert adapters_of(host) is None and all(key.endswith(".bias") for key in new)


@once
def test_what_cannot_be_merged_says_why_and_changes_nothing(name, family):
    if ADAPTERS[name].mergeable:
        pytest.skip("it can be merged")
    case, host, names = adapted(name, family)
    stir(host, names)
    before = shown(case, host)
    with pytest.raises(AssemblerError, match=r"cannot be merged: .+; leave it unmerged"):
        book_on(host).merge("tune")
    assert torch.equal(shown(case, host), before)


@pytest.mark.parametrize(("name", "family"), [case for case in CASES if HOSTS[str(case.values[1])].masks])
def test_what_is_masked_is_not_seen(name, family):
    case, host, names = adapted(name, family)
    stir(host, names)
    mask = case.batch["attention_mask"].bool()
    other = {**case.batch, "input_ids": torch.where(mask, case.batch["input_ids"], 11)}
    with torch.no_grad():
        outputs = [case.out(host(**batch)) for batch in (case.batch, other)]
    if outputs[0].shape[:2] == mask.shape:
        outputs = [output[mask] for output in outputs]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [c.values[0] for c in CASES if c.values[1] == "llama"])
def test_word_by_word_with_the_cache_it_computes_what_it_does_at_once(name):
    _, host, names = adapted(str(name), "llama")
    stir(host, names)
    ids = torch.tensor([[5, 9, 3, 17, 21], [7, 2, 8, 30, 4]])
    places, cache = torch.arange(5).expand(2, -1), DynamicCache(config=host.config)
    with torch.no_grad():
        whole = host(input_ids=ids, position_ids=places).logits
        for start, stop in ((0, 3), (3, 4), (4, 5)):
            knobs = {"attention_mask": torch.ones(2, stop, dtype=torch.long), "position_ids": places[:, start:stop]}
            argument = cache_argument(host, cache)
            part = host(input_ids=ids[:, start:stop], use_cache=True, **argument, **knobs).logits
            torch.testing.assert_close(part, whole[:, start:stop], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [c.values[0] for c in CASES if c.values[1] == "llama"])
def test_layers_computed_anew_in_the_backward_give_the_same_gradients(name):
    case, host, names = adapted(str(name), "llama")
    host.requires_grad_(False)
    mine = {key: p.requires_grad_(True) for key, p in host.named_parameters() if key in names}
    stir(host, names)
    gradients = []
    for anew in (False, True):
        if anew:
            host.gradient_checkpointing_enable({"use_reentrant": False})
        host.train().zero_grad()
        torch.manual_seed(0)
        (case.run(host).pow(2).sum() + auxiliary(host)).backward()
        gradients.append({key: p.grad.clone() for key, p in mine.items() if p.grad is not None})
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@once
def test_a_copy_of_the_host_has_its_own_adapter(name, family):
    case, host, names = adapted(name, family)
    stir(host, names)
    twin, before = copy.deepcopy(host), shown(case, host)
    assert torch.equal(shown(case, twin), before)
    stir(twin, names)
    assert not torch.equal(shown(case, twin), before)
    assert torch.equal(shown(case, host), before)


@pytest.mark.parametrize(("name", "family"), [c for c in CASES if c.values[1] in ("llama", "timm")])
def test_it_compiles_to_one_graph_and_exports(name, family):
    case, host, names = adapted(name, family)
    stir(host, names)
    before = shown(case, host)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = case.out(torch.compile(host, backend="eager", fullgraph=True)(**case.batch))
        torch.testing.assert_close(compiled, before, rtol=1e-5, atol=1e-6)
        if family == "timm":
            program = torch.export.export(host, (), case.batch, strict=False).module()
            torch.testing.assert_close(case.out(program(**case.batch)), before, rtol=1e-5, atol=1e-6)
