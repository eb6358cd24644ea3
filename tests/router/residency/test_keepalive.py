"""A stream that waits for its model is kept alive in the way of its protocol, and fails honestly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from controller.fleet.state import State
from router.proxy import keepalive
from tests.router.gateway import VLLM, Gateway, Spec, code_of, until, whole
from tests.router.proxy.scripted import Received, answer, raw, scripted, unchunked
from tests.router.residency.test_room import SETTINGS, begin, of

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

SOON: dict[str, Any] = {"router": {"keepalive_after_seconds": 0.05}}
QUESTION: Any = [{"role": "user", "content": "x"}]
SIXTY_SECONDS = 6
"""Signs that go out in sixty seconds, ten apart."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "EVERY_SECONDS", 0.02)


async def asleep(gateway: Gateway, name: str = "one", seconds: float = 0.4) -> None:
    await gateway.put_to_sleep(name)
    gateway.sims[name].fault(slow_wake={"seconds": seconds, "times": 1})


async def test_comments_come_before_the_content_and_never_inside(tmp_path: Path) -> None:
    async with whole(tmp_path, Spec("one"), **SOON) as gateway:
        plain = await gateway.complete("one", stream=True, max_tokens=5)
        await gateway.put_to_sleep("one")
        may_wake, text = gateway.hold_wake("one"), ""
        body = {"model": "one", "prompt": "Once upon a time", "max_tokens": 5, "stream": True}
        async with gateway.client.stream("POST", "/v1/completions", json=body) as kept:
            assert kept.status_code == 200
            assert kept.headers["content-type"].startswith("text/event-stream")
            async for piece in kept.aiter_text():
                text += piece
                if text.count("\n\n") >= SIXTY_SECONDS:
                    may_wake.set()
        events = text.split("\n\n")
        signs = [event for event in events if event.startswith(":")]
        assert len(signs) >= SIXTY_SECONDS and events[: len(signs)] == signs
        assert signs[0].startswith(": one: being woken, about ")
        assert len(events) - len(signs) == len(plain.text.split("\n\n"))
        assert not any(event[:1] == ":" for event in events[len(signs) :])
        assert text.endswith("data: [DONE]\n\n")
        assert gateway.in_flight == 0


async def test_without_the_setting_nothing_is_said_and_the_status_stays_open(tmp_path: Path) -> None:
    async with whole(tmp_path, Spec("one")) as gateway:
        await asleep(gateway)
        assert (await gateway.complete("one", stream=True)).text[0] != ":"


async def test_who_is_answered_soon_gets_a_real_status(tmp_path: Path) -> None:
    """And so does whoever does not stream."""
    later = {"router": {"keepalive_after_seconds": 30}}
    async with whole(tmp_path, of("huge", 90), **{**SETTINGS, **later}) as gateway:
        await begin(gateway, "huge")
        assert code_of(await gateway.complete("huge", stream=True)) == (503, "insufficient_gpu_memory")
    async with whole(tmp_path, Spec("one"), **SOON) as gateway:
        await asleep(gateway)
        assert (await gateway.complete("one")).json()["choices"]


async def test_openai_s_client_reads_sixty_seconds_of_it(tmp_path: Path) -> None:
    async with whole(tmp_path, Spec("one"), **SOON) as gateway:
        await asleep(gateway)
        async with openai.AsyncOpenAI(base_url=gateway.url + "/v1", api_key="x", max_retries=0) as client:
            stream: Any = await client.chat.completions.create(model="one", messages=QUESTION, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            assert "".join(pieces)
            await asleep(gateway)
            responses: Any = await client.responses.create(model="one", input="x", stream=True)
            kinds = [event.type async for event in responses]
            assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


async def test_anthropic_s_client_reads_sixty_seconds_of_it(tmp_path: Path) -> None:
    async with whole(tmp_path, Spec("one"), **SOON) as gateway:
        await asleep(gateway)
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="x", max_retries=0) as client:
            async with client.messages.stream(model="one", max_tokens=5, messages=QUESTION) as stream:
                text = "".join([piece async for piece in stream.text_stream])
            assert text
        await asleep(gateway)
        raw_text = (
            await gateway.client.post(
                "/v1/messages", json={"model": "one", "max_tokens": 5, "messages": QUESTION, "stream": True}
            )
        ).text
        assert raw_text.startswith('event: ping\ndata: {"type": "ping"}\n\n')


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages", "/v1/responses"])
async def test_a_failure_after_the_first_sign_is_an_error_event_and_no_clean_end(tmp_path: Path, path: str) -> None:
    settings = {"min_sleep_duration": 0, "wake_timeout_seconds": 0.3}
    async with whole(tmp_path, Spec("one"), sleep_manager=settings, **SOON) as gateway:
        await asleep(gateway, seconds=1.0)
        async with raw(gateway) as client:
            await client.post(path, {"model": "one", "prompt": "x", "input": "x", "messages": [], "stream": True})
            assert "200 ok" in await client.head()
            body, ended = unchunked(await client.rest())
        last = body.decode().strip().split("\n\n")[-1]
        told = json.loads(last[last.index("{") :])
        message = told["error"]["message"] if "error" in told else told["message"]
        assert "was not ready in time" in message
        assert last.startswith("data: ") == (path == "/v1/completions")
        assert not ended and b"[DONE]" not in body
        await until(lambda: gateway.state("one") is State.READY)
        assert gateway.in_flight == 0


async def test_an_engine_s_error_after_the_first_sign_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Behind a queue, for the engine itself is awake."""
    go = asyncio.Event()

    async def refuse(_: Received, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(answer(b'{"error": {"message": "too long", "code": 400}}', "400 Bad Request"))

    async with scripted(tmp_path, refuse, models={"one": {"max_in_flight": 1}}, **SOON) as (gateway, _):
        first = asyncio.create_task(gateway.complete("one"))
        await until(lambda: gateway.live.queues["one"].in_flight == 1)
        async with raw(gateway) as client:
            await client.post("/v1/completions", {"model": "one", "prompt": "x", "stream": True})
            await client.head()
            go.set()
            body, ended = unchunked(await client.rest())
        assert b": one: waiting for its turn, position 1, about 2 s\n\n" in body
        assert b'data: {"error": {"message": "too long", "code": 400}}\n\n' in body
        assert not ended
        assert (await first).status_code == 400


async def test_whoever_leaves_while_it_is_kept_alive_is_counted_out(tmp_path: Path) -> None:
    async with whole(tmp_path, Spec("one", VLLM), **SOON) as gateway:
        await asleep(gateway)
        async with raw(gateway) as client:
            await client.post("/v1/completions", {"model": "one", "prompt": "x", "stream": True})
            await client.head()
        await until(lambda: gateway.live.traffic.models["one"].in_flight == 0)
        await until(lambda: gateway.state("one") is State.READY)
        assert gateway.in_flight == 0


async def test_the_status_tells_what_to_expect(tmp_path: Path) -> None:
    async with whole(tmp_path, Spec("one")) as gateway:
        status = (await gateway.client.get("/model/sleep/status")).json()["models"]["one"]
        assert status["outlook"] is None
        await gateway.put_to_sleep("one")
        outlook = (await gateway.client.get("/model/sleep/status")).json()["models"]["one"]["outlook"]
        assert outlook["cause"] == "asleep" and outlook["expected_seconds"] >= 1
