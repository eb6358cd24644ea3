"""One call for all who ask at the same time."""

from __future__ import annotations

import asyncio

import pytest

from runtime.single_flight import SingleFlight

pytestmark = pytest.mark.anyio


class Counted:
    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return number


async def test_callers_join() -> None:
    """Also when the first one leaves."""
    call = Counted()
    flight = SingleFlight(call)
    callers = [asyncio.create_task(flight.get()) for _ in range(3)]
    await asyncio.sleep(0)
    callers[0].cancel()
    call.gate.set()
    assert await asyncio.gather(*callers[1:]) == [1, 1]
    assert await flight.get() == 2


async def test_what_is_fresh_is_given_again() -> None:
    """A failure is not."""
    call = Counted()
    call.gate.set()
    flight = SingleFlight(call, fresh_seconds=60.0)
    call.error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        await flight.get()
    call.error = None
    assert [await flight.get(), await flight.get()] == [2, 2]


async def test_the_end_ends_what_is_under_way() -> None:
    """Nobody is left behind."""
    call = Counted()
    flight = SingleFlight(call)
    waiting = asyncio.create_task(flight.get())
    await asyncio.sleep(0)
    await flight.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await SingleFlight(call).close()
