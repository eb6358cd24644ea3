"""The clients of a soak: most behave, some leave, some are slow, some send what is wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from benchmarks.answer import Answer
from benchmarks.connection import Server

PATIENCE = 40.0
"""Seconds until a client gives up: longer than any deadline of the gateway in a soak."""

MORTAL, FAULTY, NARROW = "mortal", "faulty", "narrow"
SLEEPERS = ("sleeper", "sleeper-too")
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
WHOLE = "200"

BROKEN = frozenset({"connection closed", "connection reset", "stream without its end", "error in the stream"})
FAILURES = BROKEN | {"HTTP 500", "HTTP 502", "HTTP 503", "HTTP 504", "answer that is not understood"}
LOST = frozenset(f"then {found} and {on}" for found in (200, 404, 502) for on in (200, 404, 502))
"""Of a response whose engine was killed: it cannot be reached, or was started again and knows nothing."""

LARGE = 1_000_000
TOO_LARGE = 5_000_000

WRONG: tuple[tuple[bytes, frozenset[str]], ...] = (
    (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{not json", frozenset({"400"})),
    (b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n{"model":"none"}', frozenset({"404"})),
    (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}", frozenset({"400"})),
    (b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", frozenset({"404"})),
    (b"GET /v1/responses/resp_nobody HTTP/1.1\r\nhost: x\r\n\r\n", frozenset({"404"})),
    (b"DELETE /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n", frozenset({"405"})),
    (b"\x16\x03\x01 this is no HTTP\r\n\r\n", frozenset({"400", "closed"})),
    (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n", frozenset({"400", "closed"})),
)
"""What is sent, and which answers are right."""


@dataclass(frozen=True)
class Habit:
    """What a client may do. ``expected``: outcomes that are right; any other fails the soak."""

    weight: float
    do: Callable[[Crowd, random.Random], Awaitable[str]]
    expected: frozenset[str]


class Crowd:
    """``outcomes``: by habit and outcome. Clients wait while ``pause`` is in effect."""

    def __init__(self, port: int, seed: int, pace: float) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self._port = port
        self._seed = seed
        self._pace = pace
        self._may_go = asyncio.Event()
        self._may_go.set()
        self._busy = 0
        self._nobody_busy = asyncio.Event()
        self._nobody_busy.set()
        self.chat = Server(f"http://127.0.0.1:{port}", CHAT, {}, PATIENCE)
        self.http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False)

    async def close(self) -> None:
        self.chat.close()
        await self.http.aclose()

    async def client(self, number: int) -> None:
        """Do one thing after the other until cancelled. Number 0 visits those that sleep, now and then."""
        chance = random.Random(f"{self._seed}/{number}")
        names = [name for name in HABITS if (name == "sleepers") is (number == 0)]
        weights = [HABITS[name].weight for name in names]
        pause = 6.0 if number == 0 else self._pace
        while True:
            await asyncio.sleep(chance.expovariate(1 / pause))
            await self._may_go.wait()
            name = chance.choices(names, weights)[0]
            self._busy += 1
            self._nobody_busy.clear()
            try:
                async with asyncio.timeout(PATIENCE):
                    outcome = await HABITS[name].do(self, chance)
            except TimeoutError:
                outcome = "no answer in time"
            except OSError as problem:
                outcome = f"connection: {problem.strerror or type(problem).__name__}"
            finally:
                self._busy -= 1
                if not self._busy:
                    self._nobody_busy.set()
            self.outcomes[name, outcome] += 1

    async def pause(self) -> None:
        """Let nobody begin anything, and wait until all have ended what they were doing."""
        self._may_go.clear()
        await self._nobody_busy.wait()
        self.chat.close()

    def resume(self) -> None:
        self._may_go.set()

    def unexpected(self) -> dict[str, int]:
        return {
            f"{name}: {outcome}": count
            for (name, outcome), count in sorted(self.outcomes.items())
            if outcome not in HABITS[name].expected
        }

    async def post(self, model: str, **fields: Any) -> str:
        answer = Answer()
        await self.chat.post(json.dumps(asked(model, **fields)).encode(), answer)
        return answer.problem or WHOLE

    async def send(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(data)
        return reader, writer


def asked(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 12} | fields


def request(body: Mapping[str, Any], path: str = CHAT) -> bytes:
    data = json.dumps(body).encode()
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), len(data), data)


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    try:
        return (await reader.readline())[9:12].decode("latin-1") or "closed"
    except ConnectionError:
        return "closed"
    finally:
        writer.close()


# -- what they do ----------------------------------------------------------------------------------------------------


async def _leave(crowd: Crowd, chance: random.Random) -> str:
    """While sending, before the answer, or in the middle of it; politely or not."""
    data = request(asked(chance.choice((MORTAL, FAULTY)), stream=chance.random() < 0.7, max_tokens=60))
    stage = chance.choice(("sending", "waiting", "reading"))
    reader, writer = await crowd.send(data[: len(data) // 2] if stage == "sending" else data)
    if stage == "reading":
        try:
            await reader.read(chance.randint(1, 2000))
        except ConnectionError:
            pass
    await asyncio.sleep(chance.expovariate(20))
    if chance.random() < 0.5:
        writer.transport.abort()
    else:
        writer.close()
    return f"left while {stage}"


async def _wrong(crowd: Crowd, chance: random.Random) -> str:
    data, right = chance.choice(WRONG)
    status = await _status(*await crowd.send(data))
    return "refused" if status in right else f"{status} for {data[:40]!r}"


async def _large(crowd: Crowd, chance: random.Random) -> str:
    """Mostly one that the engine finds too long; now and then one that the gateway does."""
    too_large = chance.random() < 0.2
    size = TOO_LARGE if too_large else chance.randint(LARGE // 2, LARGE)
    status = await _status(*await crowd.send(request(asked(MORTAL, pad="x" * size))))
    return "413 as it must" if too_large and status == "413" else status


async def _slow(crowd: Crowd, chance: random.Random) -> str:
    """Reads a long stream by and by, to its end."""
    reader, writer = await crowd.send(request(asked(MORTAL, stream=True, max_tokens=300)))
    try:
        read = b""
        while b"[DONE]" not in read:
            piece = await reader.read(4096)
            if not piece:
                return "stream without its end"
            read = read[-16:] + piece
            await asyncio.sleep(chance.expovariate(20))
        return WHOLE
    except ConnectionError:
        return "connection reset"
    finally:
        writer.close()


async def _respond(crowd: Crowd, chance: random.Random) -> str:
    """Makes a response, asks for it, goes on from it. Its engine may be killed in between, and has lost it then."""
    body: dict[str, Any] = {"model": MORTAL, "input": "Once upon a time", "max_output_tokens": 8}
    made = await crowd.http.post(RESPONSES, json=body | {"background": chance.random() < 0.3})
    if made.status_code != 200:
        return f"HTTP {made.status_code}"
    path = f"{RESPONSES}/{made.json()['id']}"
    found = await crowd.http.get(path)
    if found.status_code == 200 and found.headers["x-torpor-instance"] != made.headers["x-torpor-instance"]:
        return "fetched elsewhere"
    await crowd.http.post(f"{path}/cancel")
    on = await crowd.http.post(RESPONSES, json=body | {"previous_response_id": made.json()["id"]})
    return WHOLE if found.status_code == on.status_code == 200 else f"then {found.status_code} and {on.status_code}"


HABITS: Mapping[str, Habit] = {
    "whole": Habit(30, lambda crowd, _: crowd.post(MORTAL), frozenset({WHOLE})),
    "stream": Habit(30, lambda crowd, _: crowd.post(MORTAL, stream=True), BROKEN | {WHOLE}),
    "whole of a faulty engine": Habit(6, lambda crowd, _: crowd.post(FAULTY), FAILURES | {WHOLE}),
    "stream of a faulty engine": Habit(6, lambda crowd, _: crowd.post(FAULTY, stream=True), FAILURES | {WHOLE}),
    "queue": Habit(6, lambda crowd, _: crowd.post(NARROW), frozenset({WHOLE, "HTTP 429", "HTTP 503"})),
    "sleepers": Habit(1, lambda crowd, chance: crowd.post(chance.choice(SLEEPERS)), frozenset({WHOLE})),
    "leave": Habit(10, _leave, frozenset(f"left while {stage}" for stage in ("sending", "waiting", "reading"))),
    "slow": Habit(2, _slow, BROKEN | {WHOLE}),
    "large": Habit(2, _large, frozenset({"200", "400", "413 as it must"})),
    "wrong": Habit(6, _wrong, frozenset({"refused"})),
    "responses": Habit(5, _respond, LOST | {WHOLE}),
}
