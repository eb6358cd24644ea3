"""The official SDK: it works through the gateway, and raises its right class for each refusal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from uvicorn.config import HTTP_PROTOCOLS

from tests.router.gateway import Gateway, Spec, whole

pytestmark = pytest.mark.anyio

MESSAGES: Any = [{"role": "user", "content": "Once upon a time"}]
KEYED: dict[str, Any] = {"router": {"api_key_env": "K", "max_body_mb": 0.1}, "environment": {"K": "right"}}


@pytest.fixture(autouse=True)
def as_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the gateway's own protocol."""
    monkeypatch.setitem(HTTP_PROTOCOLS, "httptools", "router.server.protocol:DirectProtocol")


@asynccontextmanager
async def sdk(gateway: Gateway, key: str = "right") -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{gateway.url.rstrip('/')}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=10) as client:
        yield client


async def test_everything_it_offers_works(tmp_path: Path) -> None:
    """Chat, streams, completions, embeddings, responses, audio, models; the request's id is there."""
    async with whole(tmp_path, Spec("one", yaml={"aliases": ["gpt"]}), **KEYED) as gateway, sdk(gateway) as client:
        chat = await client.chat.completions.create(model="gpt", messages=MESSAGES, max_tokens=5)
        assert chat.choices[0].message.content
        assert chat.usage is not None
        assert chat.usage.completion_tokens == 5
        assert chat._request_id
        stream = await client.chat.completions.create(
            model="one", messages=MESSAGES, max_tokens=5, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == chat.choices[0].message.content
        assert chunks[-1].usage is not None
        completion = await client.completions.create(model="one", prompt="Once", max_tokens=5)
        assert completion.choices[0].text
        vectors = await client.embeddings.create(model="one", input=["a", "b"], encoding_format="float")
        assert len(vectors.data) == 2
        response = await client.responses.create(model="one", input="Once upon a time", max_output_tokens=5)
        assert response.output_text
        events = [event async for event in await client.responses.create(model="one", input="x", stream=True)]
        assert events[-1].type == "response.completed"
        heard = await client.audio.transcriptions.create(model="gpt", file=("a.wav", b"x" * 99))
        assert heard.text.startswith("99 bytes")
        assert (await client.audio.speech.create(model="one", voice="alloy", input="hello")).content.startswith(b"RIFF")
        assert {model.id async for model in client.models.list()} == {"one", "gpt"}
        assert (await client.models.retrieve("gpt")).id == "gpt"


Ask = Callable[[openai.AsyncOpenAI], Any]


def chat(**fields: Any) -> Ask:
    asked = {"model": "one", "messages": MESSAGES} | fields
    return lambda client: client.chat.completions.create(**asked)


REFUSALS: list[tuple[Ask, type[openai.APIStatusError], int, str | None]] = [
    (chat(model=""), openai.BadRequestError, 400, "invalid_parameter"),
    (chat(model=["one"]), openai.BadRequestError, 400, "invalid_parameter"),
    (chat(model="nobody"), openai.NotFoundError, 404, "model_not_found"),
    (lambda client: client.models.retrieve("nobody"), openai.NotFoundError, 404, "model_not_found"),
    (lambda client: client.fine_tuning.jobs.retrieve("x"), openai.NotFoundError, 404, "unknown_path"),
    (chat(messages=[{"role": "user", "content": "x" * 100_000}]), openai.APIStatusError, 413, "body_too_large"),
]


async def test_each_refusal_has_its_class(tmp_path: Path) -> None:
    """With the status, the code and the message of the gateway."""
    async with (
        whole(tmp_path, Spec("one"), **KEYED) as gateway,
        sdk(gateway) as client,
        sdk(gateway, "wrong") as stranger,
    ):
        for ask, kind, status, code in REFUSALS:
            await _raises(ask(client), kind, status, code)
        await _raises(chat()(stranger), openai.AuthenticationError, 401, "invalid_api_key")
        await _raises(chat(max_tokens=-1)(client), openai.BadRequestError, 400, None)


async def _raises(asked: Any, kind: type[openai.APIStatusError], status: int, code: str | None) -> None:
    with pytest.raises(kind) as raised:
        await asked
    assert type(raised.value) is kind
    assert raised.value.status_code == status
    assert raised.value.response.headers["x-torpor-error-source"] == ("gateway" if code else "engine")
    assert raised.value.request_id
    if code:
        assert raised.value.code == code


async def test_failures_of_engines_are_internal_server_errors(tmp_path: Path) -> None:
    """502, 503 and 504, streaming or not; a stream that breaks off is an error, not an end."""
    settings = {"min_sleep_duration": 0, "wakeup_on_request": False}
    async with (
        whole(
            tmp_path, Spec("one", yaml={"timeouts": {"first_byte": 0.5, "idle": 0.5}}), sleep_manager=settings
        ) as gateway,
        sdk(gateway) as client,
    ):
        sim = gateway.sims["one"]
        for stream in (False, True):
            sim.fault(hang={"times": 1})
            await _raises(chat(stream=stream)(client), openai.InternalServerError, 504, "engine_timeout")
            sim.fault(garbage={"times": 1})
            await _raises(chat(stream=stream)(client), openai.InternalServerError, 502, "engine_disconnected")
        sim.fault(refuse={"times": 1, "status": 429, "body": {"error": {"message": "full"}}})
        await _raises(chat()(client), openai.RateLimitError, 429, None)
        for fault in ("reset_after_tokens", "silent_after_tokens"):
            sim.fault(**{fault: {"tokens": 2, "times": 1}})
            with pytest.raises(openai.APIError, match=r"broke off|in time"):
                async for _ in await client.chat.completions.create(model="one", messages=MESSAGES, stream=True):
                    pass
        await gateway.put_to_sleep("one")
        await _raises(chat()(client), openai.InternalServerError, 503, "model_asleep")
        assert (await gateway.wake("one", force=True)).status_code == 200


async def test_a_refused_sleep_is_a_conflict(tmp_path: Path) -> None:
    """409 through the SDK's raw post, with kvcached's fields beside the error."""
    settings = {"min_sleep_duration": 60}
    async with whole(tmp_path, Spec("one"), sleep_manager=settings) as gateway:
        await gateway.put_to_sleep("one")
        root = openai.AsyncOpenAI(base_url=gateway.url, api_key="x", max_retries=0)
        async with root as client:
            with pytest.raises(openai.ConflictError) as raised:
                await client.post("/model/wake/one", cast_to=object)
        assert raised.value.code == "min_sleep_duration"
        assert 50 < int(raised.value.response.headers["retry-after"]) <= 60
        body = raised.value.response.json()
        assert (body["model_name"], body["success"], body["instances"]) == ("one", False, {"one": "asleep"})
        assert body["retry_after_seconds"] == pytest.approx(60, abs=5)
