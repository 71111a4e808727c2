"""What the whole suite takes on its command line, and what it does once instead of anew in every test."""

import gc
import sys
from collections.abc import Iterator
from functools import cache

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pairs", type=int, default=8, help="drawn triples of encoder, projector and LLM that are tried")


def pytest_collection_finish() -> None:
    """The collector leaves what is imported alone, and torch's exporter reads its operators once, not once a graph."""
    gc.freeze()
    if "torch" not in sys.modules:
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests of a module that uses it trace each graph once."""
    from tests.tracing import traced_once

    with traced_once(tmp_path_factory):
        yield
