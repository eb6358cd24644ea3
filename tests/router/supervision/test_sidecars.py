"""Sidecars that die: they come back as engines do, and leave the engine alone."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

from controller.launch.exclusion import turn
from controller.supervisor import policy
from tests.controller.launch.conftest import Workplace
from tests.ports import free_port
from tests.router.gateway import until
from tests.router.supervision.conftest import Kept, kept, runs, sim, unit_of

pytestmark = pytest.mark.anyio

BESIDE = "a-runtime"


def both(**keys: Any) -> dict[str, Any]:
    return sim("a", sidecar=True, sidecar_port=free_port(), **keys)


def has_come_back(fleet: Kept, before: int) -> bool:
    pane = fleet.workplace.panes().get(BESIDE)
    return pane is not None and not pane.dead and pane.pid != before


async def test_a_killed_sidecar_is_back_and_its_engine_is_not_touched(workplace: Workplace) -> None:
    """As the launcher would start it, and told in the event log."""
    workplace.write(both())
    async with kept(workplace) as fleet:
        engine, before = fleet.pid("a"), fleet.kill(BESIDE)
        await until(lambda: fleet.events(BESIDE) == ["crashed", "started"])
        assert has_come_back(fleet, before)
        crashed, started = (one for one in fleet.gateway.fleet.journal.recent if one.instance == BESIDE)
        assert (crashed.model, crashed.detail) == ("a", "its process ended (signal 9)")
        assert started.cause == "restart"
        assert fleet.pid("a") == engine
        assert await fleet.launch("up") == 0
        assert "differs" not in workplace.output
        assert fleet.events("a").count("crashed") == 0


async def test_a_sidecar_that_was_stopped_by_hand_stays_so(workplace: Workplace) -> None:
    """While it is being stopped and afterwards, until it is started by hand."""
    workplace.write(both())
    async with kept(workplace) as fleet:
        pid = fleet.pid(BESIDE)
        assert await fleet.launch("stop", BESIDE) == 0
        assert not runs(pid)
        await fleet.looked()
        assert set(workplace.panes()) == {"a"}
        assert await fleet.launch("restart", "a") == 0
        fleet.kill(BESIDE)
        await until(lambda: fleet.events(BESIDE) == ["crashed", "started"])


async def test_while_a_launcher_is_at_it_nothing_is_said_of_it(workplace: Workplace) -> None:
    """It may be what the launcher does."""
    workplace.write(both())
    async with kept(workplace) as fleet:
        async with turn(unit_of(workplace, BESIDE)):
            before = fleet.kill(BESIDE)
            await until(lambda: not runs(before))
            await fleet.looked()
            assert fleet.events(BESIDE) == []
        await until(lambda: has_come_back(fleet, before))


async def test_one_that_dies_again_and_again_is_given_up_until_somebody_starts_it(workplace: Workplace) -> None:
    """By the launcher; then it has all its chances again."""
    workplace.write(both())
    with mock.patch.object(policy, "BUDGET", 1):
        async with kept(workplace) as fleet:
            fleet.kill(BESIDE)
            await until(lambda: fleet.events(BESIDE) == ["crashed", "started"])
            fleet.kill(BESIDE)
            await until(lambda: fleet.events(BESIDE)[2:] == ["crashed", "given_up"])
            await fleet.looked()
            assert fleet.workplace.panes()[BESIDE].dead
            assert await fleet.launch("up") == 0
            await fleet.looked()
            fleet.kill(BESIDE)
            await until(lambda: fleet.events(BESIDE)[4:] == ["crashed", "started"])


async def test_what_the_file_does_not_want_restarted_stays_dead(workplace: Workplace) -> None:
    workplace.write(both(), launch={"restart": False})
    async with kept(workplace) as fleet:
        fleet.kill(BESIDE)
        await until(lambda: workplace.panes()[BESIDE].dead)
        await fleet.looked()
        assert fleet.events(BESIDE) == []
