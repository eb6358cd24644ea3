"""Faults on demand do what they say, as often as they say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import pytest

from runtime.engines.sim.errors import ApiError
from runtime.engines.sim.faults import KINDS, Faults
from tests.patience import until
from tests.runtime.engines.sim.stage import QUICK, SLOW, Sim, sse, stage

pytestmark = pytest.mark.anyio


async def read_raw(sim: Sim, body: dict[str, Any]) -> tuple[bytes, bool]:
    """All bytes of an answer, and whether the connection was reset."""
    content = json.dumps({"model": "tiny", "prompt": "x"} | body).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(head % len(content) + content)
    received, reset = b"", False
    try:
        while data := await reader.read(65536):
            received += data
    except ConnectionResetError:
        reset = True
    writer.close()
    return received, reset


async def test_fault_is_used_up() -> None:
    """times says how many requests it hits; GET tells what is left, DELETE clears."""
    async with stage(QUICK) as sim:
        await sim.fault(refuse={"times": 2, "status": 500, "retry_after": 3, "body": {"error": "no"}})
        first = await sim.complete()
        assert (first.status_code, first.headers["retry-after"], first.json()) == (500, "3", {"error": "no"})
        assert (await sim.get("/sim/faults")).json()["faults"]["refuse"]["times"] == 1
        assert (await sim.complete()).status_code == 500
        assert (await sim.complete()).status_code == 200
        await sim.fault(refuse=True)
        assert (await sim.complete()).status_code == 503
        assert (await sim.client.delete("/sim/faults")).json() == {"faults": {}}
        assert (await sim.complete()).status_code == 200


async def test_reset_in_mid_stream() -> None:
    """Two tokens, then RST."""
    async with stage(SLOW) as sim:
        await sim.fault(reset_after_tokens=2)
        received, reset = await read_raw(sim, {"stream": True})
        await until(lambda: not sim.engine.scheduler.running)
    assert (received.count(b"data: "), reset) == (2, True)


async def test_close_in_mid_stream() -> None:
    """Two tokens, then a clean end of the connection without the last chunk."""
    async with stage(SLOW) as sim:
        await sim.fault(close_after_tokens=2)
        received, reset = await read_raw(sim, {"stream": True})
    assert (received.count(b"data: "), reset) == (2, False)
    assert not received.endswith(b"0\r\n\r\n")


async def test_garbage() -> None:
    """Bytes that are no HTTP."""
    async with stage(QUICK) as sim:
        await sim.fault(garbage={"times": 1})
        received, _ = await read_raw(sim, {})
        with pytest.raises(httpx2.RemoteProtocolError):
            await sim.fault(garbage={"times": 1})
            await sim.complete()
    assert received
    assert not received.startswith(b"HTTP/")


async def test_short_body() -> None:
    """Fewer bytes than the Content-Length promises."""
    async with stage(QUICK) as sim:
        await sim.fault(short_body=True)
        with pytest.raises(httpx2.RemoteProtocolError):
            await sim.complete()


async def test_hang_until_the_client_leaves() -> None:
    """No answer, no place taken."""
    async with stage(QUICK) as sim:
        await sim.fault(hang={"times": 1})
        with pytest.raises(httpx2.ReadTimeout):
            await sim.complete_within(0.1)
        assert sim.engine.scheduler.size == 0
        assert (await sim.complete()).status_code == 200


async def test_silence_in_mid_stream() -> None:
    """Two tokens, then nothing, the connection open and the place held until the client leaves."""
    async with stage(QUICK) as sim:
        await sim.fault(silent_after_tokens=2)
        body = {"prompt": "x", "stream": True}
        async with sim.client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.aiter_lines()
            seen = [await anext(lines) for _ in range(4)]
            assert len(sim.engine.scheduler.running) == 1
        await until(lambda: not sim.engine.scheduler.running)
    assert sum(line.startswith("data: ") for line in seen) == 2


async def test_engine_error_in_mid_stream() -> None:
    """What vLLM sends when its core dies: an error event, then [DONE], on a 200."""
    async with stage(QUICK) as sim:
        await sim.fault(error_after_tokens=2)
        answer = await sim.complete(stream=True)
        whole = await sim.complete()
    events = sse(answer.text)
    assert answer.status_code == 200
    assert events[-2][1]["error"]["message"].startswith("EngineCore encountered an issue.")
    assert (events[-1][1], len(events)) == ("[DONE]", 4)
    assert whole.status_code == 500


async def test_crash_at_once_or_after_tokens() -> None:
    """Posted without tokens it happens now; with tokens in the next reply."""
    async with stage(QUICK) as sim:
        await sim.fault(crash={"tokens": 2, "times": 1})
        await sim.complete()
        assert sim.deaths == [1]
        await sim.post("/sim/faults", {"crash": True})
        assert sim.deaths == [1, 1]


async def test_sleep_and_wake_can_fail() -> None:
    """The status wanted, and nothing done."""
    async with stage(QUICK) as sim:
        await sim.fault(fail_sleep={"times": 1}, fail_wake={"times": 1, "status": 503}, fail_health=500)
        assert (await sim.get("/health")).status_code == 500
        assert (await sim.post("/sleep")).status_code == 500
        assert not sim.engine.asleep
        await sim.post("/sleep")
        assert (await sim.post("/wake_up")).status_code == 503
        assert sim.engine.asleep
        assert (await sim.post("/wake_up")).status_code == 200


async def test_wake_can_be_done_and_not_answered() -> None:
    """The caller times out; the engine is awake."""
    async with stage(QUICK) as sim:
        await sim.fault(wake_ok_but_timeout={"times": 1}, slow_wake={"seconds": 0.01, "times": 1})
        await sim.post("/sleep")
        with pytest.raises(httpx2.ReadTimeout):
            await sim.post("/wake_up", timeout=0.2)
        assert (await sim.get("/is_sleeping")).json() == {"is_sleeping": False}


@pytest.mark.parametrize(
    "wanted", [{"nope": True}, {"hang": {"tokens": 1}}, {"refuse": {"status": "503"}}, {"hang": []}]
)
async def test_wrong_fault_is_refused(wanted: dict[str, Any]) -> None:
    """400 that names the fault, and nothing changes."""
    with pytest.raises(ApiError):
        Faults(wanted)
    async with stage(QUICK) as sim:
        answer = await sim.post("/sim/faults", {"refuse": True} | wanted)
        assert answer.status_code == 400
        assert next(iter(wanted)) in answer.json()["error"]["message"]
        assert (await sim.get("/sim/faults")).json() == {"faults": {}}


def test_every_fault_takes_true_and_a_number() -> None:
    """Shorthands work for all kinds."""
    for kind in KINDS:
        assert Faults({kind: True}).active(kind) is not None
        assert Faults({kind: 3}).active(kind) is not None
        assert Faults({kind: False}).active(kind) is None
