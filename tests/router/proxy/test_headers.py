"""What an engine is sent and what a client gets: the same, but for what belongs to one hop, and keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.router.proxy.scripted import answer, raw, scripted

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_door")]

BODY = b'{"model": "one",   "prompt": "x", "unknown": {"z": 1.0, "a": 1e3}}'


async def test_body_and_query_reach_the_engine_as_they_were_sent(tmp_path: Path) -> None:
    """Byte for byte: blanks, order, unknown fields, numbers as written."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        reply = await gateway.client.post("/v1/completions?a=%2F&b=1", content=BODY)
        assert reply.status_code == 200
    assert engine.received[0].body == BODY
    assert engine.received[0].target == b"/v1/completions?a=%2F&b=1"


async def test_headers_of_one_hop_stay_behind(tmp_path: Path) -> None:
    """Those of RFC 9110, those that Connection lists, and the client's keys; the rest goes on."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine), raw(gateway) as client:
        head = (
            f"POST /v1/completions HTTP/1.1\nHost: evil.example\nContent-Length: {len(BODY)}\n"
            "Connection: close, X-Secret\nConnection: x-other\nX-Secret: 1\nx-other: 2\nKeep-Alive: timeout=9\n"
            "Proxy-Authorization: Basic eA==\nTE: trailers\nAuthorization: Bearer client\nX-Api-Key: client\n"
            "Content-Type: application/json\nTraceparent: 00-abc\nx-many: 1\nx-many: 2\nX-Empty:"
        )
        await client.ask(head, BODY)
        assert (await client.head()).startswith("http/1.1 200")
    request = engine.received[0]
    sent = {key.lower() for key, _ in request.headers}
    assert sent == {
        *(b"host", b"content-length", b"content-type", b"traceparent", b"x-many", b"x-empty", b"x-request-id"),
    }
    assert request.all("x-many") == [b"1", b"2"]
    assert request.all("host") == [gateway.instance("one").config.spec.base_url.removeprefix("http://").encode()]
    assert request.all("content-length") == [str(len(BODY)).encode()]


async def test_engine_gets_its_own_key(tmp_path: Path) -> None:
    """Instead of the client's; no answer shows it."""
    yaml, environment = {"api_key_env": "ENGINE_KEY"}, {"ENGINE_KEY": "engine-secret"}
    async with scripted(tmp_path, answer(b"{}"), yaml, environment) as (gateway, engine):
        reply = await gateway.client.post("/v1/completions", content=BODY, headers={"authorization": "Bearer mine"})
        assert engine.received[0].all("authorization") == [b"Bearer engine-secret"]
        pages = [await gateway.client.get(path) for path in ("/models", "/get_server_info", "/metrics", "/health/all")]
        assert all("engine-secret" not in page.text + str(page.headers) for page in [reply, *pages])


async def test_error_of_the_engine_passes_unchanged(tmp_path: Path) -> None:
    """Status, body and headers; and a word about who failed."""
    body = b'{"object": "error",\n "message": "context too long \\u00e9", "code": 400}'
    script = answer(
        body, "418 I Am A Teapot", "X-Engine: yes", "retry-after: 7", "set-cookie: a=1", "Set-Cookie: b=2",
        "connection: keep-alive, x-hop", "x-hop: 1", "proxy-authenticate: Basic",
    )  # fmt: skip
    async with scripted(tmp_path, script) as (gateway, _):
        reply = await gateway.client.post("/v1/completions", content=BODY)
        stats = (await gateway.client.get("/traffic/stats/one")).json()["model_stats"]
    assert (reply.status_code, reply.content) == (418, body)
    assert reply.headers["x-engine"] == "yes"
    assert reply.headers["retry-after"] == "7"
    assert reply.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert reply.headers["content-length"] == str(len(body))
    assert reply.headers["x-torpor-error-source"] == "engine"
    assert reply.headers["x-torpor-instance"] == "one"
    assert not {"x-hop", "proxy-authenticate", "connection"} & set(reply.headers)
    assert (stats["failed_requests"], stats["status_classes"]) == (1, {"4xx": 1})
    assert stats["time_to_first_token"]["p50"] is None


async def test_request_id_is_kept_or_made(tmp_path: Path) -> None:
    """The engine and the client see the same one, also when the gateway itself refuses."""
    async with scripted(tmp_path, answer(b"{}")) as (gateway, engine):
        kept = await gateway.client.post("/v1/completions", content=BODY, headers={"X-Request-Id": "mine"})
        made = await gateway.client.post("/v1/completions", content=BODY)
        refused = await gateway.client.post("/v1/completions", content=b"{}", headers={"X-Request-Id": "mine"})
        refused_made = await gateway.client.post("/v1/completions", content=b"{}")
    assert engine.received[0].all("x-request-id") == [b"mine"] == [kept.headers["x-request-id"].encode()]
    assert engine.received[1].all("x-request-id") == [made.headers["x-request-id"].encode()] != [b""]
    assert refused.headers["x-request-id"] == "mine"
    assert len(refused_made.headers["x-request-id"]) >= 16
    assert "x-torpor-error-source" not in kept.headers
    assert refused.headers["x-torpor-error-source"] == "gateway"


async def test_engine_that_names_the_request_keeps_its_word(tmp_path: Path) -> None:
    """One x-request-id in the answer: the engine's own."""
    async with scripted(tmp_path, answer(b"{}", "200 OK", "X-Request-Id: theirs")) as (gateway, _):
        reply = await gateway.client.post("/v1/completions", content=BODY, headers={"X-Request-Id": "mine"})
    assert reply.headers.get_list("x-request-id") == ["theirs"]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body(tmp_path: Path, status: str) -> None:
    """They end with their head."""
    async with scripted(tmp_path, f"HTTP/1.1 {status}\r\nx-a: 1\r\n\r\n".encode()) as (gateway, _):
        for _ in range(2):
            reply = await gateway.client.post("/v1/completions", content=BODY)
            assert (reply.status_code, reply.content) == (int(status[:3]), b"")


async def test_interim_answers_are_not_the_answer(tmp_path: Path) -> None:
    """100 and 103 are read over."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with scripted(tmp_path, interim + answer(b'{"a":1}')) as (gateway, _):
        reply = await gateway.client.post("/v1/completions", content=BODY)
    assert (reply.status_code, reply.json()) == (200, {"a": 1})
    assert "link" not in reply.headers


async def test_answer_that_ends_with_its_connection(tmp_path: Path) -> None:
    """Has no length and no chunks, as HTTP/1.0 has it; it is complete all the same."""

    async def script(request: object, writer: object) -> None:
        from asyncio import StreamWriter

        assert isinstance(writer, StreamWriter)
        writer.write(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n")
        writer.write(json.dumps({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}).encode())
        writer.close()

    async with scripted(tmp_path, script) as (gateway, _):
        reply = await gateway.client.post("/v1/completions", content=BODY)
        stats = (await gateway.client.get("/traffic/stats/one")).json()["model_stats"]
    assert reply.json()["usage"]["prompt_tokens"] == 3
    assert (stats["successful_requests"], stats["prompt_tokens"], stats["completion_tokens"]) == (1, 3, 4)
