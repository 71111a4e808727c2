"""The long benchmarks of serving, on toys and for seconds."""

import pytest
import torch

from benchmarks import gpu
from benchmarks.soak import GROWTH, measured


def test_64_clients_at_once_lose_no_answer_and_get_no_other_clients(folders):
    found = measured(folders["in_place"], clients=64, minutes=0.04)
    assert found["wrong"] == 0, found["first_wrong"]
    assert found["answers"] >= 64 and found["growth"] <= GROWTH


def test_the_gpu_benchmark_takes_its_steps_on_toy_sizes(capsys):
    assert gpu.main(["--device", "cpu", "--tiny", "--rounds", "1"]) == 0
    assert "batch 32" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_says_plainly_that_there_is_no_gpu(capsys):
    assert gpu.main([]) == 1
    assert "no GPU" in capsys.readouterr().err
