"""Token counts are found in the tail of whatever an engine answers, however it is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.proxy.tokens import TAIL_BYTES, TAIL_FRAMES, Tail
from tests.router.gateway import DIALECTS, Spec, whole

CAPTURES = Path(__file__).parents[2] / "captures"
STREAMS = sorted(CAPTURES.glob("*-stream.http"))
PROMPT = {"prompt": "Once upon a time", "max_tokens": 5}
MESSAGES = {"messages": [{"role": "user", "content": "Once upon a time"}], "max_tokens": 5}


def body_of(capture: Path) -> bytes:
    return capture.read_bytes().partition(b"\r\n\r\n")[2]


def usage(*chunks: bytes) -> tuple[int, int]:
    tail = Tail()
    for chunk in chunks:
        tail.add(chunk)
    return tail.usage()


def test_captures_of_real_engines_are_understood() -> None:
    """Chat, completions, messages and responses, as vLLM sends them."""
    assert len(STREAMS) == 4
    for capture in STREAMS:
        prompt, completion = usage(body_of(capture))
        asked = b'"usage":{' in body_of(capture)
        assert asked == ("completions" not in capture.name)
        assert (completion, prompt > 0) == ((5, True) if asked else (0, False)), capture


@pytest.mark.parametrize("capture", STREAMS, ids=lambda path: path.stem)
@given(data=st.data())
def test_any_cutting_gives_the_same_counts(capture: Path, data: st.DataObject) -> None:
    """In the middle of a number, too."""
    body = body_of(capture)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=20)))
    pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert usage(*pieces) == usage(body)
    assert usage(*(b"x" * 40_000, *pieces)) == usage(body)
    assert usage(*(bytes([byte]) for byte in body)) == usage(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (0, 0)),
        (b'{"usage": null}', (0, 0)),
        (b'{"usage": {}}', (0, 0)),
        (b'{"usage" : {"prompt_tokens" : 3 , "completion_tokens":null}}', (3, 0)),
        (b'{"usage": {"prompt_tokens": 3, "total_tokens": 3}}', (3, 0)),
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n{"usage":null}', (3, 4)),
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":1}}{"usage":{"prompt_tokens":3,"completion_tokens":2}}',
         (3, 2)),
        (b'{"text":"\\"usage\\": {\\"prompt_tokens\\": 9}","usage":{"prompt_tokens":1,"completion_tokens":2}}', (1, 2)),
        (b'{"usage":{"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":9},"prompt_tokens":1}}',
         (1, 2)),
        (b'{"usage":{"prompt_tokens":' + b"9" * 5_000 + b',"completion_tokens":2}}', (0, 2)),
        (b'{"usage":{"prompt_tokens":' + b"9" * 400 + b',"completion_tokens":-2}}', (0, 0)),
        (b'{"usage":{"type":"duration","seconds":3}}', (0, 0)),
        (b'{"usage":{"input_tokens":7,"output_tokens":8}}', (7, 8)),
    ],
)  # fmt: skip
def test_bodies(body: bytes, expected: tuple[int, int]) -> None:
    """The last word that has numbers counts; what is not said is 0."""
    assert usage(body) == expected


def test_a_long_answer_is_not_kept() -> None:
    """Twice the tail and one chunk at most, by reference."""
    tail = Tail()
    for _ in range(10_000):
        tail.add(b"x" * 1000)
    assert TAIL_BYTES <= sum(map(len, [*tail._older, *tail._chunks])) <= 2 * (TAIL_BYTES + 1000)


def test_frames_and_other_pieces_are_kept_in_order_and_not_for_long() -> None:
    """Whichever an answer comes in, and however often that changes."""
    tail = Tail()
    tail.add(b"0,")
    keep = tail.keep_frames()
    for number in range(1, 10_000):
        (keep if number % 7 else tail.add)(b"%d," % number * (1 if number % 49 else 100))
    kept = [int(one) for one in b"".join([*tail._older, *tail._chunks]).split(b",")[:-1]]
    assert kept == sorted(kept)
    assert kept[-1] == 9_999
    assert TAIL_FRAMES <= len({*kept}) <= 2 * TAIL_FRAMES


@pytest.mark.anyio
@pytest.mark.parametrize("options", DIALECTS, ids=lambda options: options.dialect)
async def test_counts_are_the_engines_own(tmp_path: Path, options: object) -> None:
    """Not streamed, streamed with usage and without, in each protocol."""
    asked = [
        ("/v1/completions", PROMPT),
        ("/v1/completions", PROMPT | {"stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", MESSAGES),
        ("/v1/chat/completions", MESSAGES | {"stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/responses", {"input": "Once upon a time", "max_output_tokens": 5}),
        ("/v1/responses", {"input": "Once upon a time", "max_output_tokens": 5, "stream": True}),
        ("/v1/messages", MESSAGES),
        ("/v1/messages", MESSAGES | {"stream": True}),
    ]
    async with whole(tmp_path, Spec("one", options)) as gateway:  # type: ignore[arg-type]
        traffic = gateway.live.traffic.models["one"]
        for path, fields in asked:
            before = traffic.prompt_tokens, traffic.completion_tokens
            reply = await gateway.client.post(path, json=fields | {"model": "one"})
            assert reply.status_code == 200, reply.text
            prompt, completion = traffic.prompt_tokens - before[0], traffic.completion_tokens - before[1]
            assert completion == 5, (path, fields)
            assert prompt >= 4, (path, fields)
            if not fields.get("stream"):
                said = json.loads(reply.text)["usage"]
                assert prompt == said.get("prompt_tokens", said.get("input_tokens"))
        before = traffic.prompt_tokens, traffic.completion_tokens
        await gateway.client.post("/v1/completions", json=PROMPT | {"model": "one", "stream": True})
        assert (traffic.prompt_tokens, traffic.completion_tokens) == before
        stats = (await gateway.client.get("/traffic/stats/one")).json()["model_stats"]
        assert (stats["prompt_tokens"], stats["completion_tokens"]) == before
