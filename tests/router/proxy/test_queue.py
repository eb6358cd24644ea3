"""A model with ``max_in_flight``: who waits, who is turned away, and who comes first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.config.schema import ModelSection
from router.errors import TooManyRequests
from router.proxy.headers import ASKED
from router.proxy.queue import FIRST_GUESS, Queue
from tests.router.gateway import Gateway, code_of, until
from tests.router.proxy.scripted import Received, answer, raw, scripted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]


class Held:
    """An engine that answers when it is let. ``order``: the prompts as they came."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.go = asyncio.Semaphore(0)

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        self.order.append(request.all("x-name")[0].decode())
        await self.go.acquire()
        writer.write(answer(b"{}"))


@asynccontextmanager
async def held(folder: Path, **settings: Any) -> AsyncIterator[tuple[Gateway, Held]]:
    engine = Held()
    async with scripted(folder, engine, models={"one": settings}) as (gateway, _):
        yield gateway, engine


def ask(gateway: Gateway, name: str, **headers: str) -> asyncio.Task[httpx2.Response]:
    headers = {"x-name": name, "x-request-id": name, **headers}
    return asyncio.create_task(
        gateway.client.post("/v1/completions", json={"model": "one", "prompt": "x"}, headers=headers)
    )


async def waiting(gateway: Gateway, count: int) -> None:
    await until(lambda: len(gateway.live.queues["one"].waiters) == count)


async def test_no_more_than_allowed_are_in_flight_and_the_others_are_served_in_turn(tmp_path: Path) -> None:
    async with held(tmp_path, max_in_flight=2) as (gateway, engine):
        asking = []
        for number in range(8):
            asking.append(ask(gateway, str(number)))
            await until(lambda: len(engine.order) + len(gateway.live.queues["one"].waiters) == len(asking))
        assert engine.order == ["0", "1"]
        for _ in asking:
            engine.go.release()
        assert [(await one).status_code for one in asking] == [200] * 8
        assert engine.order[2:] == [str(number) for number in range(2, 8)]
        assert gateway.live.queues["one"].in_flight == gateway.in_flight == 0


async def test_one_too_many_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with held(tmp_path, max_in_flight=1, max_queued=1) as (gateway, engine):
        first, second = ask(gateway, "first"), None
        await until(lambda: engine.order == ["first"])
        second = ask(gateway, "second")
        await waiting(gateway, 1)
        third = await ask(gateway, "third")
        assert code_of(third) == (429, "queue_full")
        assert int(third.headers["retry-after"]) >= 1
        assert third.json()["error"]["type"] == "rate_limit_error"
        engine.go.release()
        engine.go.release()
        assert [(await one).status_code for one in (first, second)] == [200, 200]


async def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    async with held(tmp_path, max_in_flight=1, queue_timeout_seconds=0.05) as (gateway, engine):
        first = ask(gateway, "first")
        await until(lambda: engine.order == ["first"])
        late = await ask(gateway, "late")
        assert code_of(late) == (503, "queue_timeout")
        assert int(late.headers["retry-after"]) >= 1
        engine.go.release()
        assert (await first).status_code == 200
        assert engine.order == ["first"]


async def test_who_has_waited_for_long_at_another_gateway_waits_no_longer(tmp_path: Path) -> None:
    async with held(tmp_path, max_in_flight=1, queue_timeout_seconds=300) as (gateway, engine):
        first = ask(gateway, "first")
        await until(lambda: engine.order == ["first"])
        late = await ask(gateway, "late", **{ASKED.decode(): "0.001"})
        assert code_of(late) == (503, "queue_timeout")
        engine.go.release()
        assert (await first).status_code == 200


async def test_urgent_requests_go_first_and_push_others_out_of_a_full_queue(tmp_path: Path) -> None:
    async with held(tmp_path, max_in_flight=1, max_queued=2, priority_header="X-Priority") as (gateway, engine):
        asking = {"first": ask(gateway, "first")}
        await until(lambda: engine.order == ["first"])
        for count, (name, priority) in enumerate({"patient": "5", "usual": "0"}.items(), 1):
            asking[name] = ask(gateway, name, **{"x-priority": priority})
            await waiting(gateway, count)
        asking["urgent"] = ask(gateway, "urgent", **{"x-priority": "-1"})
        assert code_of(await asking.pop("patient")) == (429, "queue_full")
        for _ in range(3):
            engine.go.release()
        assert {(await one).status_code for one in asking.values()} == {200}
        assert engine.order == ["first", "urgent", "usual"]
        assert code_of(await ask(gateway, "odd", **{"x-priority": "very"})) == (400, "bad_priority")


async def test_whoever_leaves_makes_room(tmp_path: Path) -> None:
    """From the queue, or while in flight."""
    async with held(tmp_path, max_in_flight=1) as (gateway, engine):
        body = {"model": "one", "prompt": "x"}
        async with raw(gateway) as flying:
            data = json.dumps(body).encode()
            head = f"POST /v1/completions HTTP/1.1\nhost: x\nx-name: flying\ncontent-length: {len(data)}"
            await flying.ask(head, data)
            await until(lambda: engine.order == ["flying"])
            async with raw(gateway) as queued:
                await queued.post("/v1/completions", body)
                await waiting(gateway, 1)
            await waiting(gateway, 0)
            last = ask(gateway, "last")
            await waiting(gateway, 1)
        await until(lambda: engine.order == ["flying", "last"])
        engine.go.release()
        engine.go.release()
        assert (await last).status_code == 200
        assert gateway.live.queues["one"].in_flight == 0


async def test_who_waits_can_be_seen(tmp_path: Path) -> None:
    async with held(tmp_path, max_in_flight=1, max_queued=9) as (gateway, engine):
        asking = [ask(gateway, "first")]
        await until(lambda: engine.order == ["first"])
        for count, name in enumerate(("second", "third"), 1):
            asking.append(ask(gateway, name))
            await waiting(gateway, count)
        seen = (await gateway.client.get("/queue")).json()["models"]["one"]
        assert (seen["max_in_flight"], seen["in_flight"], seen["max_queued"], seen["waiting"]) == (1, 1, 9, 2)
        assert [(one["id"], one["position"], one["priority"]) for one in seen["requests"]] == [
            ("second", 1, 0),
            ("third", 2, 0),
        ]
        assert 0 < seen["requests"][0]["expected_wait_seconds"] <= seen["requests"][1]["expected_wait_seconds"]
        page = (await gateway.client.get("/metrics")).text
        assert 'torpor_queue_waiting{model="one"} 2.0' in page
        for _ in asking:
            engine.go.release()
        await asyncio.gather(*asking)


def queue(limit: int, clock: Callable[[], float] = lambda: 0.0, **settings: Any) -> Queue:
    return Queue("one", limit, ModelSection(max_in_flight=limit, **settings), clock)


def test_the_pace_is_that_of_a_full_queue() -> None:
    """However long nothing was to be done before, and whether or not anybody waited."""
    now = 0.0
    line = queue(2, lambda: now)
    assert line.try_enter()
    line.leave()
    now = 1000.0
    assert line.try_enter()
    now = 2000.0
    assert line.try_enter()
    assert line.expected_wait(0) == FIRST_GUESS / 2
    for _ in range(50):
        now += 5
        line.leave()
        assert line.try_enter()
    assert line.expected_wait(2) == pytest.approx(3 * 5, rel=0.01)
    now += 60
    assert line.expected_wait(2) == 60


def test_nobody_is_told_to_wait_for_longer_than_anybody_may() -> None:
    """After so long all that wait now have had their turn, or were told that it is too late."""
    assert queue(1, queue_timeout_seconds=30).expected_wait(500) == 30


STEPS = st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel"]), st.integers(-2, 2)), max_size=60)


@given(STEPS, st.integers(1, 3), st.integers(0, 4))
def test_whatever_happens_places_are_neither_lost_nor_made(steps: list[tuple[str, int]], limit: int, room: int) -> None:
    async def play() -> None:
        line = queue(limit, max_queued=room)
        inside: list[asyncio.Task[None]] = []
        outside: list[asyncio.Task[None]] = []
        for step, number in steps:
            if step == "enter":
                outside.append(asyncio.create_task(line.enter(b"", number, 0.0)))
            elif step == "leave" and inside:
                inside.pop(number % len(inside))
                line.leave()
            elif step == "cancel" and outside:
                outside[number % len(outside)].cancel()
            for _ in range(4):
                await asyncio.sleep(0)
            for one in [one for one in outside if one.done()]:
                outside.remove(one)
                if not one.cancelled() and one.exception() is None:
                    inside.append(one)
                elif not one.cancelled():
                    assert isinstance(one.exception(), TooManyRequests)
            assert line.in_flight == len(inside) <= limit
            assert len(line.waiters) == len(outside) <= room
            assert not outside or line.in_flight == limit  # nobody waits while a place is free
        for one in outside:
            one.cancel()
        await asyncio.gather(*outside, return_exceptions=True)

    asyncio.run(play())
