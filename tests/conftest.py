"""Fixtures every test may use, and how hypothesis looks."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.conformance.target import add_options

# On a busy machine time says nothing, and a rare example must not fail somebody else's change: the same ones every
# time. ``--hypothesis-profile explore`` looks at others.
settings.register_profile(
    "explore", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.register_profile("same", settings.get_profile("explore"), derandomize=True)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here, because pytest asks for options only at the top."""
    add_options(parser)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
