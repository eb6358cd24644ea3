"""GET /events tells the story, as a list and live, and goes on after a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from controller.fleet import chronicle
from controller.fleet.journal import Happened
from state import events
from tests.router.gateway import Gateway, Spec, code_of, engines, gateway, until, whole
from tests.router.proxy.scripted import raw
from tests.router.residency.test_room import SETTINGS, begin, of

pytestmark = pytest.mark.anyio


async def story(running: Gateway, query: str = "") -> list[dict[str, Any]]:
    answer = await running.client.get(f"/events{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


async def test_a_walk_through_models_is_told(tmp_path: Path) -> None:
    async with whole(tmp_path, of("a", 60), of("b", 60), **SETTINGS) as running:
        await begin(running, "b")
        await running.complete("a")
        await until(lambda: not running.instance("a").in_flight)
        start = (await running.client.get("/events")).json()["last"]
        assert (await running.complete("b")).status_code == 200
        told = [(one["what"], one["instance"], one["cause"]) for one in await story(running, f"?after={start}")]
        assert told == [
            ("evicted", "a", "b"),
            ("slept", "a", "evicted"),
            ("wake_began", "b", "request"),
            ("ready", "b", ""),
            ("woken", "b", "request"),
        ]
        numbers = [one["number"] for one in await story(running)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [one["number"] for one in await story(running, "?limit=2")] == numbers[-2:]
        assert [one["number"] for one in await story(running, "?after=1&limit=2")] == numbers[1:3]
        page = (await running.client.get("/metrics")).text
        assert 'torpor_evictions_total{model="a"}' in page
        assert 'torpor_wake_duration_seconds_count{cause="request",level="1",model="b"} 1.0' in page
        assert 'torpor_requests_served_by_wake_total{model="b"} 1.0' in page


async def test_a_refusal_that_is_asked_for_again_and_again_does_not_fill_the_log(tmp_path: Path) -> None:
    async with whole(tmp_path, of("huge", 90), **SETTINGS) as running:
        await begin(running, "huge")
        for _ in range(5):
            assert code_of(await running.complete("huge")) == (503, "insufficient_gpu_memory")
        assert [one["what"] for one in await story(running)].count("refused") == 1


async def test_the_oldest_are_forgotten_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "PRUNE_EVERY", 10)
    monkeypatch.setattr(events, "KEPT", 20)
    async with whole(tmp_path, Spec("a")) as running:
        for _ in range(50):
            running.fleet.journal.tell(Happened.WAITS, "a")
        running.fleet.journal.recent.clear()
        await running.live.chronicle.finish()
        assert 20 <= len(await story(running)) < 30


async def test_what_happened_before_a_restart_is_not_forgotten(tmp_path: Path) -> None:
    """Nor how long a model took to wake, which tells how long it will."""
    async with engines(Spec("a")) as sims:
        async with gateway(tmp_path, sims, sleep_manager={"min_sleep_duration": 0}) as first:
            await first.put_to_sleep("a")
            await first.complete("a")
            took = first.instance("a").wake_seconds
            await first.put_to_sleep("a")
            before = await story(first)
        async with gateway(tmp_path, sims) as second:
            after = await story(second)
            assert after[: len(before)] == before
            assert list(took) == [1] and second.instance("a").wake_seconds == took
            assert [one["number"] for one in after] == list(range(1, len(after) + 1))


async def test_it_can_be_followed_live(tmp_path: Path) -> None:
    """From a number on, what was and then what happens; a gateway that stops does not wait for its followers."""
    async with whole(tmp_path, Spec("a")) as running, raw(running) as client:
        await running.put_to_sleep("a")
        await client.ask("GET /events HTTP/1.1\nhost: x\naccept: text/event-stream\nlast-event-id: 1")
        assert "text/event-stream" in await client.head()
        assert await _next(client.reader) == "slept"
        await running.complete("a")
        assert [await _next(client.reader) for _ in range(3)] == ["wake_began", "ready", "woken"]
        listeners = running.fleet.journal.listeners
        count = len(listeners)
    await until(lambda: len(listeners) < count)


async def test_who_knows_a_later_number_follows_another_journal_from_its_beginning(tmp_path: Path) -> None:
    """The database it was in is lost."""
    async with whole(tmp_path, Spec("a")) as running, raw(running) as client:
        await running.put_to_sleep("a")
        await client.ask("GET /events HTTP/1.1\nhost: x\naccept: text/event-stream\nlast-event-id: 1000")
        await client.head()
        assert [await _next(client.reader) for _ in range(2)] == ["ready", "slept"]
        await running.complete("a")
        assert await _next(client.reader) == "wake_began"


async def _next(reader: asyncio.StreamReader) -> str:
    while True:
        line = await asyncio.wait_for(reader.readline(), 10)
        if line.startswith(b"data: "):
            return str(json.loads(line[6:])["what"])


async def test_bad_queries_are_refused(tmp_path: Path) -> None:
    async with whole(tmp_path, Spec("a")) as running:
        for query in ("?limit=0", "?limit=1001", "?after=-1", "?after=x", "?stream=perhaps"):
            assert code_of(await running.client.get(f"/events{query}"))[0] == 400


async def test_who_holds_what_and_who_waits(tmp_path: Path) -> None:
    async with whole(tmp_path, of("a", 60), of("b", 60), Spec("free"), **SETTINGS) as running:
        await begin(running, "b")
        await running.complete("a")
        seen = (await running.client.get("/residency")).json()
        assert seen["places"]["gpu0"] == {"capacity": 80 * 2**30, "used": 61 * 2**30, "free": 19 * 2**30}
        assert seen["instances"]["a"]["held"] == {"gpu0": 60 * 2**30}
        assert seen["instances"]["b"]["held"] == {"gpu0": 2**30, "host": 60 * 2**30}
        assert not seen["instances"]["free"]["managed"]
        may_wake = running.hold_wake("b")
        asking = asyncio.create_task(running.complete("b"))
        await until(lambda: bool(running.live.arbiter.waiting))
        (waiting,) = (await running.client.get("/residency")).json()["waiting"]
        assert (waiting["model"], waiting["position"], waiting["cause"]) == ("b", 1, "request")
        may_wake.set()
        assert (await asking).status_code == 200
