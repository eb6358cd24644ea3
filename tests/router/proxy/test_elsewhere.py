"""A request that one replica does not answer goes to another, as long as no byte of an answer has gone out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller.fleet.circuit import FAILURES, Circuit
from router.proxy import refusal
from router.proxy.refusal import LONGEST_BYTES
from tests.router.gateway import Gateway, code_of
from tests.router.proxy.scripted import LIST, Received, Script, answer, chunk, raw, replicas, unchunked

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

BODY = {"model": "one", "prompt": "x"}
GOOD = answer(b'{"good":true}')
BUSY = answer(b'{"error":"busy"}', "503 Service Unavailable", "retry-after: 7")
GOING_DOWN = answer(b'{"error":{"message":"cannot schedule new futures after shutdown"}}', "500 Internal Server Error")
BROKEN = answer(b'{"error":{"message":"CUDA error"}}', "500 Internal Server Error")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def reset(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def begin_and_reset(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD + chunk(b"data: {}\n\n"))
    await writer.drain()
    writer.transport.abort()


async def refuse_halfway(_: Received, writer: asyncio.StreamWriter) -> None:
    """The head of a refusal, and not its body."""
    writer.write(BUSY[:-4])
    await writer.drain()
    writer.transport.abort()


async def in_pieces(_: Received, writer: asyncio.StreamWriter) -> None:
    for byte in BUSY:
        writer.write(bytes((byte,)))
        await writer.drain()


def circuit(gateway: Gateway, name: str) -> Circuit:
    return gateway.instance(name).breaker.circuit


@pytest.mark.parametrize("bad", [reset, BUSY, GOING_DOWN, refuse_halfway, in_pieces])
async def test_another_replica_answers(tmp_path: Path, bad: Script | bytes) -> None:
    """The client sees the good answer only; who failed is asked in its turn until its circuit opens."""
    async with replicas(tmp_path, {"bad": bad, "good": GOOD}) as (gateway, engines):
        for _ in range(4 * FAILURES):
            reply = await gateway.complete("one")
            assert (reply.status_code, reply.json()) == (200, {"good": True})
            assert reply.headers["x-torpor-instance"] == "good"
        assert circuit(gateway, "bad") is Circuit.OPEN
        assert len(engines["bad"].received) == FAILURES
        assert [one.body for one in engines["bad"].received] == [engines["good"].received[0].body] * FAILURES
        assert gateway.in_flight == 0
        assert gateway.live.traffic.models["one"].outcomes["successful"] == 4 * FAILURES  # type: ignore[index]


async def test_when_all_refuse_the_engine_s_own_word_is_passed_on(tmp_path: Path) -> None:
    async with replicas(tmp_path, {"a": BUSY, "b": BUSY}) as (gateway, engines):
        reply = await gateway.complete("one")
        assert (reply.status_code, reply.json(), reply.headers["retry-after"]) == (503, {"error": "busy"}, "7")
        assert reply.headers["x-torpor-error-source"] == "engine"
        assert len(engines["a"].received) == len(engines["b"].received) == 1


async def test_a_refusal_is_passed_on_when_the_other_replica_cannot_be_asked(tmp_path: Path) -> None:
    async with replicas(tmp_path, {"busy": BUSY, "reset": reset}) as (gateway, _):
        for _ in range(2):
            reply = await gateway.complete("one")
            assert reply.status_code in (502, 503)
            if reply.status_code == 503:
                assert (reply.json(), reply.headers["x-torpor-instance"]) == ({"error": "busy"}, "busy")
        assert gateway.in_flight == 0


@pytest.mark.parametrize("said", [0, 4], ids=["the head", "half of it"])
async def test_a_refusal_without_an_end_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    """Its head has said enough. An answer that is no refusal has the time that is configured."""
    monkeypatch.setattr(refusal, "UNENDED_SECONDS", 0.05)
    over = asyncio.Event()
    head, _, body = BUSY.partition(b"\r\n\r\n")

    async def stall(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head + b"\r\n\r\n" + body[:said])
        await writer.drain()
        await over.wait()

    soon = {"timeouts": {"first_byte": 8, "idle": 0.8}}  # looked at four times in the shorter of them
    async with replicas(tmp_path, {"busy": stall, "good": GOOD}, soon) as (gateway, engines):
        for _ in range(2):
            assert (await gateway.complete("one")).json() == {"good": True}
        over.set()
        assert len(engines["busy"].received) == 1
        assert gateway.in_flight == 0


async def test_any_other_failure_of_an_engine_is_its_client_s_to_see(tmp_path: Path) -> None:
    """A 500 that says nothing of a shutdown is not asked for again, and neither is one that goes on for long."""
    long = answer(b"x" * (40 * LONGEST_BYTES), "503 Service Unavailable")
    for bad in (BROKEN, long):
        async with replicas(tmp_path, {"bad": bad, "good": GOOD}) as (gateway, _):
            statuses = {(await gateway.complete("one")).status_code for _ in range(2)}
            assert statuses == {200, int(bad[9:12])}


async def test_a_request_that_resets_engines_meets_two_of_them_at_most(tmp_path: Path) -> None:
    """Should it have killed the first one, not all are to follow."""
    async with replicas(tmp_path, dict.fromkeys("abcd", reset)) as (gateway, engines):
        assert code_of(await gateway.complete("one")) == (502, "engine_disconnected")
        assert sum(len(one.received) for one in engines.values()) == 2


async def test_nothing_is_sent_again_once_an_answer_has_begun(tmp_path: Path) -> None:
    async with replicas(tmp_path, dict.fromkeys("ab", begin_and_reset)) as (gateway, engines):
        async with raw(gateway) as client:
            await client.post("/v1/completions", BODY | {"stream": True})
            await client.head()
            body, whole = unchunked(await client.rest())
        assert b"engine_disconnected" in body and not whole
        assert sum(len(one.received) for one in engines.values()) == 1


async def test_clients_who_err_open_no_circuit(tmp_path: Path) -> None:
    wrong = answer(b'{"error":"wrong"}', "400 Bad Request")
    async with replicas(tmp_path, {"a": wrong, "b": GOOD}) as (gateway, _):
        for _ in range(4 * FAILURES):
            await gateway.complete("one")
        assert circuit(gateway, "a") is Circuit.CLOSED


async def test_the_last_replica_is_never_given_up(tmp_path: Path) -> None:
    """Its circuit is open; it is asked all the same, and closed again after its rest."""
    script: list[bytes] = [BROKEN] * FAILURES + [GOOD]

    async def fails_then_serves(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(script.pop(0) if len(script) > 1 else script[0])

    async with replicas(tmp_path, {"only": fails_then_serves}) as (gateway, _):
        for _ in range(FAILURES):
            assert (await gateway.complete("one")).status_code == 500
        assert circuit(gateway, "only") is Circuit.OPEN
        assert (await gateway.complete("one")).status_code == 200


async def test_one_that_is_gone_is_left_for_the_other_at_once(tmp_path: Path) -> None:
    """Connections that were kept are dropped and cannot be made again: as ``kill -9`` looks from here."""
    held = asyncio.Event()
    arrived = asyncio.Event()

    async def dies(_: Received, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await held.wait()
        writer.transport.abort()

    async with replicas(tmp_path, {"dies": dies, "lives": GOOD}) as (gateway, engines):
        asking = [asyncio.create_task(gateway.complete("one")) for _ in range(2)]
        await arrived.wait()
        held.set()
        assert [(await one).status_code for one in asking] == [200, 200]
        assert len(engines["lives"].received) == 2
        assert LIST  # both were looked at, and said that they are healthy
