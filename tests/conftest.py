"""What the whole suite takes on its command line."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pairs", type=int, default=8, help="drawn triples of encoder, projector and LLM that are tried")
