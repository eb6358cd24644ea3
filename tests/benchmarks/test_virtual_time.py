"""Time that passes at once."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.virtual_time import NeverLater, NothingLeft, VirtualLoop, run


def test_hours_pass_in_order() -> None:
    """Sleeps and deadlines, each at its time."""
    seen: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, asyncio.get_running_loop().time()))

    async def all_of_them() -> None:
        await asyncio.gather(wait("late", 3600.0), wait("soon", 0.5))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60.0):
                await asyncio.Event().wait()
        seen.append(("given up", asyncio.get_running_loop().time()))

    run(all_of_them())
    assert seen == [("soon", 0.5), ("late", 3600.0), ("given up", 3660.0)]


def test_a_turn_takes_no_time() -> None:
    """What waits for a timer waits on; what can be done is done."""
    loop = VirtualLoop()
    timer = loop.create_task(asyncio.sleep(1.0))
    ready = loop.create_task(asyncio.sleep(0))
    loop.turn(3)
    assert (timer.done(), ready.done(), loop.time()) == (False, True, 0.0)
    loop.pass_time(1.5)
    assert (timer.done(), loop.time()) == (True, 1.5)
    loop.end()


def test_who_waits_for_ever_is_told() -> None:
    """Instead of hanging."""
    with pytest.raises(NothingLeft):
        run(asyncio.Event().wait())


def test_who_does_the_same_again_and_again_is_told() -> None:
    """And no time passes over it."""
    loop = VirtualLoop()

    def again() -> None:
        loop.call_soon(again)

    again()
    with pytest.raises(NeverLater):
        loop.pass_time(1.0)
    loop.end()


def test_what_is_left_to_a_thread_is_done_in_turn() -> None:
    """And what goes wrong there is told to who left it."""

    async def leave() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(int, "7")

    assert run(leave()) == 7
