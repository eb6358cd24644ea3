"""Reading answers: tokens, usage, ends and what is wrong."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.answer import Answer


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def said(content: str | None, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish}])


USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9})
DONE = b"data: [DONE]\n\n"
ROLE = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
WHOLE = ROLE + said(" a") + said(" b") + said("", "length") + USAGE + DONE


def streamed(*pieces: bytes) -> Answer:
    """``pieces`` arriving one second apart, from second 1."""
    answer = Answer()
    answer.begin(200, b"text/event-stream; charset=utf-8")
    for second, piece in enumerate(pieces, start=1):
        answer.feed(piece, float(second))
    answer.end(float(len(pieces)))
    return answer


def test_only_text_counts_as_a_token() -> None:
    """The role, the finish and the usage are no tokens; the time to the first token is that of the first text."""
    answer = streamed(ROLE, said(" a"), said(" b"), said("", "length"), USAGE, DONE)

    assert answer.problem is None
    assert (answer.first_byte, answer.first_token, answer.chunks, answer.gaps) == (1.0, 2.0, 2, [1.0])
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)


@given(cuts=st.lists(st.integers(1, len(WHOLE) - 1), max_size=12))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    """However the network cuts it, the counts are the same."""
    edges = [0, *sorted(set(cuts)), len(WHOLE)]
    answer = streamed(*(WHOLE[start:end] for start, end in itertools.pairwise(edges)))

    assert answer.problem is None
    assert answer.chunks == 2
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 7


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (said(" a"), "stream without its end"),
        (said(" a") + event(error={"message": "gone"}), "error in the stream"),
        (said(" a", "abort") + DONE, "aborted by the engine"),
        (b"data: {nonsense\n\n" + DONE, "event that is not understood"),
    ],
)
def test_a_stream_that_is_not_whole_is_an_error(body: bytes, problem: str) -> None:
    """Cut, failed, aborted and broken streams are told apart, though all came with status 200."""
    assert streamed(body).problem == problem


@pytest.mark.parametrize(
    "delta", [{"reasoning_content": "x"}, {"reasoning": "x"}, {"tool_calls": [{"index": 0, "function": {}}]}]
)
def test_thoughts_and_tool_calls_are_tokens_too(delta: dict[str, Any]) -> None:
    """A model that thinks first has its first token when the first thought comes."""
    assert streamed(event(choices=[{"delta": delta}]) + DONE).chunks == 1


def test_an_answer_in_one_piece() -> None:
    """Not streamed: the usage counts, and there is no time to the first token."""
    answer = Answer()
    answer.begin(200, b"application/json")
    whole = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'
    answer.feed(whole[:20], 1.0)
    answer.feed(whole[20:], 2.0)
    answer.end(2.0)

    assert answer.problem is None
    assert answer.first_token is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


def test_an_error_status_is_the_problem() -> None:
    """An error's body is not read as an answer."""
    answer = Answer()
    answer.begin(503, b"text/event-stream")
    answer.feed(b"whatever", 1.0)
    answer.end(1.0)

    assert answer.problem == "HTTP 503"
