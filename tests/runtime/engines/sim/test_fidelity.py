"""Streams, bodies and headers have the shape real vLLM 0.32 gave them."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from tests.runtime.engines.sim.stage import CAPTURES, QUICK, SGLANG, sse, stage

pytestmark = pytest.mark.anyio

_ASKED: list[tuple[str, str, dict[str, Any]]] = [
    ("completions", "/v1/completions", {"prompt": "Once"}),
    (
        "chat",
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Hi"}], "stream_options": {"include_usage": True}},
    ),
    ("messages", "/v1/messages", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("responses", "/v1/responses", {"input": "Hi", "max_output_tokens": 5}),
]


def capture(name: str) -> tuple[dict[str, str], str]:
    """Headers and body of a captured answer."""
    head, _, body = (CAPTURES / f"vllm-0.32-{name}.http").read_text().replace("\r\n", "\n").partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    return headers, body


def shape(value: Any) -> Any:
    """The keys of a JSON value, all the way down, in order."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(one) for one in value[:1]]
    return type(value).__name__


def runs(events: list[tuple[str | None, Any]]) -> list[Any]:
    """Name and shape of each event, equal neighbours told once."""
    told: list[Any] = []
    for name, data in events:
        entry = (name, shape(data))
        if not told or told[-1] != entry:
            told.append(entry)
    return told


@pytest.mark.parametrize(("name", "path", "body"), _ASKED, ids=[one[0] for one in _ASKED])
async def test_stream_has_the_events_of_the_capture(name: str, path: str, body: dict[str, Any]) -> None:
    """Same event names, same keys in the same order, same end."""
    _, captured = capture(f"{name}-stream")
    async with stage(QUICK) as sim:
        answer = await sim.post(path, {"model": "tiny", "max_tokens": 5, "stream": True} | body)
    assert runs(sse(answer.text)) == runs(sse(captured))
    assert re.sub(r"data: .*", "data: x", answer.text).count("\n\n") == len(sse(answer.text))


@pytest.mark.parametrize(("name", "path", "body"), _ASKED, ids=[one[0] for one in _ASKED])
async def test_stream_has_the_headers_of_the_capture(name: str, path: str, body: dict[str, Any]) -> None:
    """Same header names and, apart from the date, same values."""
    captured, _ = capture(f"{name}-stream")
    async with stage(QUICK) as sim:
        await sim.get("/health")  # uvicorn sets the date on its first tick
        answer = await sim.post(path, {"model": "tiny", "max_tokens": 5, "stream": True} | body)
    given = {key: value for key, value in answer.headers.items() if key != "date"}
    assert given == {key: value for key, value in captured.items() if key != "date"}


async def test_unknown_model_is_answered_to_the_letter() -> None:
    """404 with the very bytes of the capture."""
    headers, body = capture("unknown-model")
    async with stage(QUICK) as sim:
        answer = await sim.complete(model="nope")
    assert answer.status_code == 404
    assert answer.text == body.rstrip("\n")
    assert answer.headers["content-type"] == headers["content-type"]


async def test_whole_completion_has_the_keys_of_the_real_one() -> None:
    """The keys noted in facts/engines.md, and usage that adds up."""
    async with stage(QUICK) as sim:
        answer = (await sim.complete(max_tokens=6)).json()
    names = (
        "id object created model choices service_tier system_fingerprint usage kv_transfer_params ec_transfer_params "
        "metrics"
    )
    assert list(answer) == names.split()
    assert set(answer["choices"][0]) == {
        "index",
        "text",
        "logprobs",
        "finish_reason",
        "stop_reason",
        "token_ids",
        "prompt_logprobs",
        "prompt_token_ids",
        "routed_experts",
    }
    used = answer["usage"]
    assert used["completion_tokens"] == 6
    assert used["prompt_tokens"] + used["completion_tokens"] == used["total_tokens"]
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"prompt": ""}, 400, "BadRequestError", "must be provided and non-empty"),
        ({"n": 0}, 400, "BadRequestError", "n must be at least 1, got 0."),
        ({"prompt": "x" * 200_000}, 400, "BadRequestError", "characters (more than 98304"),
        ({"prompt": "x" * 40_000}, 400, "BadRequestError", "at least 8193 input tokens"),
        ({"max_tokens": 10_000}, 400, "BadRequestError", "cannot be greater than max_model_len=8192"),
        ({"prompt": "x" * 8192 * 4, "max_tokens": 1}, 400, "BadRequestError", "max_tokens must be at least 1, got 0."),
        ({"stream_options": {"include_usage": True}}, 400, "BadRequestError", "Stream options can only be defined"),
    ],
)
async def test_bad_request_gets_the_real_error(body: dict[str, Any], status: int, kind: str, words: str) -> None:
    """Status, type and message as captured, also before a stream."""
    async with stage(QUICK) as sim:
        answer = await sim.complete(**body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (status, kind, status)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("content", "kind", "loc"),
    [(b'{"model": "tiny", ', "json_invalid", "body.18"), (b"", "missing", "body")],
)
async def test_malformed_body_gets_the_real_error(content: bytes, kind: str, loc: str) -> None:
    """Validation errors say "Bad Request" with a space, and where."""
    async with stage(QUICK) as sim:
        answer = await sim.client.post("/v1/completions", content=content, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "Bad Request", loc)
    assert f"'type': '{kind}'" in error["message"]


async def test_long_wish_is_cut_down_silently() -> None:
    """A prompt of 8191 tokens and max_tokens 2 in 8192: one token, finish_reason length."""
    async with stage(QUICK) as sim:
        answer = (await sim.complete("x" * 8191 * 4, max_tokens=2)).json()
    assert answer["usage"]["completion_tokens"] == 1
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_request_id_header_sets_the_id_of_the_body() -> None:
    """X-Request-Id: abc makes cmpl-abc."""
    async with stage(QUICK) as sim:
        answer = await sim.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers={"x-request-id": "abc"})
    assert answer.json()["id"] == "cmpl-abc"
    assert "x-request-id" not in answer.headers


async def test_reply_ends_at_a_stop_string() -> None:
    """The text stops before it, finish_reason is stop and names it."""
    async with stage(QUICK) as sim:
        whole = await sim.text(max_tokens=40)
        stop = whole.split()[10]
        answer = (await sim.complete(max_tokens=40, stop=[stop])).json()
    choice = answer["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


async def test_sglang_streams_have_its_quirks() -> None:
    """usage null in each chunk, matched_stop, and a separate last delta in chat."""
    async with stage(SGLANG) as sim:
        wish: dict[str, Any] = {"max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
        completion = sse((await sim.complete(**wish)).text)
        chat = sse(
            (await sim.post("/v1/chat/completions", wish | {"messages": [{"role": "user", "content": "x"}]})).text
        )
    assert [data["usage"] for _, data in completion[:3]] == [None] * 3
    assert "matched_stop" in completion[0][1]["choices"][0]
    assert completion[3][1]["usage"]["completion_tokens"] == 3
    assert completion[-1][1] == chat[-1][1] == "[DONE]"
    final = chat[-3][1]["choices"][0]
    assert (final["delta"]["content"], final["finish_reason"]) == (None, "length")


async def test_sglang_answers_any_model_name() -> None:
    """200, the name echoed, a bare hex id; errors are flat."""
    async with stage(SGLANG) as sim:
        answer = (await sim.complete(model="nope")).json()
        bad = await sim.complete(n=0)
    assert answer["model"] == "nope"
    assert re.fullmatch("[0-9a-f]{32}", answer["id"])
    assert bad.json() == {
        "object": "error",
        "message": "range() arg 3 must not be zero",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }


async def test_the_other_routes_answer() -> None:
    """Embeddings, ranks, sounds, pictures, tokens: 200 and the field that matters."""
    png = b"\x89PNG"
    async with stage(QUICK) as sim:
        embedding = await sim.post("/v1/embeddings", {"input": ["a b", "c"], "dimensions": 4})
        packed = await sim.post("/v1/embeddings", {"input": "a b", "encoding_format": "base64"})
        rank = await sim.post("/v1/rerank", {"query": "red fox", "documents": ["blue sea", "a red fox"]})
        score = await sim.post("/score", {"text_1": "a", "text_2": ["a", "b"]})
        classes = await sim.post("/classify", {"input": "a"})
        pooled = await sim.post("/pooling", {"input": "a"})
        tokens = (await sim.post("/tokenize", {"prompt": "héllo world"})).json()
        text = (await sim.post("/detokenize", {"tokens": tokens["tokens"]})).json()
        counted = await sim.post("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x"}]})
        heard = await sim.client.post(
            "/v1/audio/transcriptions", files={"file": ("a.wav", b"1234567")}, data={"model": "tiny"}
        )
        spoken = await sim.post("/v1/audio/speech", {"input": "hello"})
        image = await sim.post("/v1/images/generations", {"prompt": "a fox"})
    assert len(embedding.json()["data"][0]["embedding"]) == 4
    assert isinstance(packed.json()["data"][0]["embedding"], str)
    assert rank.json()["results"][0]["index"] == 1
    assert len(score.json()["data"]) == 2
    assert "probs" in classes.json()["data"][0]
    assert pooled.json()["data"][0]["object"] == "pooling"
    assert text == {"prompt": "héllo world"}
    assert counted.json()["input_tokens"] > 0
    assert heard.json()["text"].startswith("7 bytes")
    assert spoken.content.startswith(b"RIFF")
    assert base64.b64decode(image.json()["data"][0]["b64_json"]).startswith(png)
