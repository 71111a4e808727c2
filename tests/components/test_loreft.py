"""LoReFT: the ends of a row change, within r directions."""

import torch

from assembler.adapters.book import adapters_of
from components.adapters._loreft import Ends
from components.adapters.loreft import Loreft
from tests.conformance.hosts import HOSTS, host_of
from tests.conformance.test_adapters import stir


@torch.no_grad()
def test_only_the_ends_of_what_is_real_change_and_only_in_the_directions_that_are_learned():
    host, case = host_of("bert"), HOSTS["bert"]
    new = Loreft(host="h", rank=2, prefix=1, suffix=1, layers=[1]).attach(host, "tune", seed=0)
    stir(host, new, by=0.5)
    change = case.run(host) - case.run(host_of("bert"))
    moved = change.abs().amax(-1) > 1e-6
    assert moved.tolist() == [[True, False, False, False, True], [False, False, True, False, True]]
    modules = [insert.module for insert in adapters_of(host).inserts("tune").values()]
    for end in next(module for module in modules if isinstance(module, Ends)).ends:
        directions = end.directions()
        torch.testing.assert_close(directions @ directions.T, torch.eye(2), rtol=1e-5, atol=1e-6)
        assert torch.linalg.matrix_rank(end(torch.randn(1, 20, 16))[0], rtol=1e-4) == 2


@torch.no_grad()
def test_it_may_start_as_the_host_is():
    host, case = host_of("vit"), HOSTS["vit"]
    Loreft(host="h", rank=2, init="identity", tied=True).attach(host, "tune", seed=0)
    torch.testing.assert_close(case.run(host), case.run(host_of("vit")), rtol=1e-5, atol=1e-6)
