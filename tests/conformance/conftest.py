"""Fixtures of the conformance suite: docs/conformance.md says how it is pointed at another gateway."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import pytest

from tests.conformance.engine import Engine
from tests.conformance.engine import engine as running_engine
from tests.conformance.hop import Hop
from tests.conformance.report import Report
from tests.conformance.target import MODEL, Target, given, torpor, wait_for


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--conformance-report")
    if file is not None:
        config.pluginmanager.register(Report(file), "conformance-report")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        ways = ["given"] if given(metafunc.config) else ["direct", "asgi"]
        metafunc.parametrize("target", ways, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if given(config):
        own = [item for item in items if item.get_closest_marker("torpor")]
        config.hook.pytest_deselected(items=own)
        items[:] = [item for item in items if item not in own]


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    target = given(request.config)
    port: int = request.config.getoption("--engine-port") if target else 0
    with running_engine(port, target.model if target else MODEL) as running:
        yield running


@pytest.fixture(scope="session")
def started(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Target]]:
    """Torpor each way that it can be run: started when first asked for, and kept."""
    with contextlib.ExitStack() as running:

        @functools.cache
        def start(way: str) -> Target:
            folder = tmp_path_factory.mktemp("torpor")
            return running.enter_context(torpor(folder, engine.port, direct=way == "direct"))

        yield start


@pytest.fixture(scope="session")
def other(request: pytest.FixtureRequest, engine: Engine) -> Target | None:
    """The gateway that was given, when it has found its engine and serves."""
    found = given(request.config)
    if found is not None:
        hop = Hop(found, engine)
        hop.answers()
        wait_for(lambda: hop.post().status == 200, f"{found.host}:{found.port} does not serve {found.model!r}")
        hop.close()
    return found


@pytest.fixture
def target(request: pytest.FixtureRequest, other: Target | None, started: Callable[[str], Target]) -> Target:
    """The gateway under test: Torpor both ways, or the one that was given."""
    return other or started(request.param)


@pytest.fixture
def hop(target: Target, engine: Engine) -> Iterator[Hop]:
    hop = Hop(target, engine)
    hop.answers()
    yield hop
    hop.close()
