"""Waiting for an engine, with a clock that the test moves."""

from __future__ import annotations

import pytest

from controller.launch.readiness import Readiness, wait_until_ready


class Scripted:
    """Healthy, dead and the time, by a script."""

    def __init__(self, healthy_at: float = 1e9, dies_at: float = 1e9) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._healthy_at = healthy_at
        self._dies_at = dies_at

    async def healthy(self) -> bool | None:
        return self.now >= self._healthy_at

    async def recognised(self) -> bool:
        return False

    async def is_asleep(self) -> bool | None:
        return None

    async def alive(self) -> bool:
        return self.now < self._dies_at

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def wait(self) -> Readiness:
        return await wait_until_ready(self, self.alive, 60, clock=lambda: self.now, pause=self.pause)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (Scripted(healthy_at=0), Readiness.READY),
        (Scripted(healthy_at=30), Readiness.READY),
        (Scripted(dies_at=5), Readiness.DIED),
        (Scripted(healthy_at=0, dies_at=0), Readiness.DIED),
        (Scripted(), Readiness.LATE),
    ],
)
async def test_how_waiting_ends(script: Scripted, ending: Readiness) -> None:
    """A dead one is never ready, even if something answers on its port."""
    assert await script.wait() is ending


@pytest.mark.anyio
async def test_it_asks_less_and_less_often() -> None:
    """From 50 ms up to a second, and not beyond the deadline."""
    script = Scripted()
    await script.wait()
    assert script.pauses[0] == pytest.approx(0.05)
    assert max(script.pauses) == 1.0
    assert script.now == pytest.approx(60)
