"""EigenLoRAx: a LoRA of a subspace that others span is found again by few numbers."""

import pytest
import torch

from assembler.adapters.book import adapters_of
from assembler.adapters.files import load_adapter, save_adapter
from assembler.adapters.prepare import Trial
from assembler.errors import AssemblerError
from components.adapters._eigenlorax import main_directions
from components.adapters.eigenlorax import Eigenlorax
from components.adapters.lora import Lora
from tests.conformance.hosts import HOSTS, host_of

CASE = HOSTS["llama"]


def loras(count: int, width: int, span: int, rank: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    space = torch.linalg.qr(torch.randn(width, span, generator=generator)).Q
    return [space @ torch.randn(span, rank, generator=generator) for _ in range(count)]


def error(basis: torch.Tensor, factor: torch.Tensor) -> float:
    return float((basis @ (basis.T @ factor) - factor).norm() / factor.norm())


def test_five_loras_give_the_subspace_of_a_sixth():
    *five, sixth = loras(6, width=64, span=8, rank=4)
    assert error(main_directions(five, 8), sixth) < 1e-5
    assert error(main_directions(five, 8), torch.randn(64, 4)) > 0.5
    filled = main_directions(five, 64)
    assert error(filled, torch.randn(64, 4)) < 1e-5
    torch.testing.assert_close(filled.T @ filled, torch.eye(64), rtol=1e-4, atol=1e-5)


@pytest.fixture
def folders(tmp_path):
    """Three LoRAs of the tiny Llama in files."""
    for number in range(3):
        host = host_of("llama")
        for key in Lora(host="h", rank=2, alpha=6).attach(host, f"l{number}", seed=number):
            torch.nn.init.normal_(host.get_parameter(key))
        save_adapter(host, f"l{number}", tmp_path / f"l{number}")
    return tmp_path


def prepared(folders, **options):
    host = host_of("llama")
    sources = [f"file:l{number}" for number in range(3)]
    part = Eigenlorax(host="h", rank=2, loras=sources, **options)
    part.attach(host, "tune", seed=0)
    part.prepare(Trial(host, "tune", folders, list, host))
    return host


@pytest.mark.parametrize("learns", ["loadings", "factors"])
def test_projected_on_all_of_its_directions_it_is_the_first_lora(folders, learns):
    options = {"directions": 16, "init": "project", "sites": "layers.*.attn.q", "learns": learns}
    host, one = prepared(folders, **options), host_of("llama")
    load_adapter(one, folders / "l0", "tune")
    for key, insert in adapters_of(one).inserts("tune").items():
        if "attn_v" in key:
            torch.nn.init.zeros_(insert.module.lora_B.weight)
    with torch.no_grad():
        torch.testing.assert_close(CASE.run(host), CASE.run(one), rtol=1e-4, atol=1e-4)
    assert adapters_of(host).names == ["tune"]


def test_the_bases_do_not_learn(folders):
    host = prepared(folders, directions=4)
    names = [name.rpartition(".")[2] for name, _ in adapters_of(host).modules.named_parameters()]
    assert set(names) == {"loading_a", "loading_b"}
    host = prepared(folders, directions=4, learns="factors")
    assert {name.rpartition(".")[2] for name, _ in adapters_of(host).modules.named_parameters()} == {"down", "up"}


@pytest.mark.parametrize(
    ("options", "said"),
    [({"sites": "layers.*.attn.k"}, "changes nothing at"), ({"init": "project", "rank": 3}, "rank")],
)
def test_loras_that_do_not_fit_are_named(folders, options, said):
    with pytest.raises(AssemblerError, match=said):
        host = host_of("llama")
        part = Eigenlorax(host="h", **{"rank": 2, "directions": 4, "loras": ["file:l0"], **options})
        part.attach(host, "tune", seed=0)
        part.prepare(Trial(host, "tune", folders, list, host))
