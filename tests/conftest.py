"""Fixtures every test may use."""

from __future__ import annotations

import pytest

from tests.conformance.target import add_options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here, because pytest asks for options only at the top."""
    add_options(parser)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
