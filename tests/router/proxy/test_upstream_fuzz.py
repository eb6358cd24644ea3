"""The upstream client against every way a network can cut an answer, and against answers that are none.

Real sockets are in the other files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.proxy.upstream import MAX_HEAD_BYTES, Broken, Dropped
from tests.router.proxy.wire import Connection, Taken

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"

# -- answers that are whole ----------------------------------------------------------------------------------------

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).map(lambda name: f"x-{name}".encode())
VALUE = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12
).map(lambda text: text.encode("latin-1"))  # fmt: skip
HEADERS = st.lists(st.tuples(TOKEN, VALUE), max_size=4)
NOISE = st.binary(max_size=3) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
EXTENSION = st.sampled_from([b"", b";a", b";a=b", b';a="b;c"'])
BODY = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


@dataclass(frozen=True)
class Answer:
    """An answer and its bytes. ``closes``: it ends with the connection, or closes it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    wire: bytes
    ends_with_connection: bool = False


def lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % one for one in headers)


@st.composite
def answers(draw: st.DrawFn, keeps: bool = False) -> Answer:
    """Every frame that HTTP/1.1 has. ``keeps``: only such that leave the connection open."""
    interim = b"".join(
        b"HTTP/1.1 %d Soon\r\n%b\r\n" % (status, lines(draw(HEADERS)))
        for status in draw(st.lists(st.sampled_from([100, 102, 103]), max_size=2))
    )
    frame = draw(st.sampled_from(["length", "chunks", "none", *([] if keeps else ["end"])]))
    headers, pieces = draw(HEADERS), draw(BODY)
    status = draw(
        st.sampled_from([204, 304]) if frame == "none" else st.sampled_from([200, 201, 206, 299, 400, 503, 599])
    )
    body = b"" if frame == "none" else b"".join(pieces)
    if frame == "length":
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        framed = body
    elif frame == "chunks":
        headers = [(b"transfer-encoding", b"chunked"), *headers]
        framed = b"".join(b"%x%b\r\n%b\r\n" % (len(one), draw(EXTENSION), one) for one in pieces)
        framed += b"0%b\r\n%b\r\n" % (draw(EXTENSION), lines(draw(HEADERS)))
    else:
        framed = body
    head = b"HTTP/1.1 %d Some Reason\r\n%b\r\n" % (status, lines(headers))
    return Answer(status, headers, body, interim + head + framed, frame == "end")


def check(taken: Taken, answer: Answer) -> None:
    assert taken.outcome is None
    assert (taken.status, taken.headers, taken.body) == (answer.status, answer.headers, answer.body)


@given(answer=answers())
@settings(max_examples=60)
def test_an_answer_is_the_same_wherever_it_is_cut(answer: Answer) -> None:
    """In two reads, cut at every byte; at once; and byte by byte."""
    wire = answer.wire
    cuts = [[wire], [wire[at : at + 1] for at in range(len(wire))]]
    cuts += [[wire[:at], wire[at:]] for at in range(1, len(wire))]
    for reads in cuts:
        connection = Connection()
        taken = connection.ask(reads)
        assert bool(taken.outcomes) is not answer.ends_with_connection
        assert connection.upstream.reusable is not answer.ends_with_connection
        connection.lose()
        check(taken, answer)


@given(sequence=st.lists(answers(keeps=True), min_size=2, max_size=4), data=st.data())
@settings(max_examples=60)
def test_answers_on_a_kept_connection_are_each_their_own(sequence: list[Answer], data: st.DataObject) -> None:
    """One after the other, each cut anywhere, nothing of one in the next."""
    connection = Connection()
    for answer in sequence:
        places = data.draw(st.lists(st.integers(0, len(answer.wire)), max_size=6).map(sorted))
        edges = [0, *places, len(answer.wire)]
        check(connection.ask([answer.wire[start:end] for start, end in pairwise(edges)]), answer)
        assert connection.upstream.reusable


# -- answers that are not ------------------------------------------------------------------------------------------


@st.composite
def damaged(draw: st.DrawFn) -> list[bytes]:
    """The reads of an answer in which something was lost, added or changed; sometimes mere noise."""
    wire = bytearray(draw(answers()).wire if draw(st.integers(0, 9)) else draw(st.binary(max_size=80)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(wire)))
        end = min(len(wire), at + draw(st.integers(0, 4)))
        noise = draw(
            st.one_of(st.binary(max_size=3), st.sampled_from([b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"]))
        )
        wire[at:end] = noise
    if draw(st.booleans()):
        del wire[draw(st.integers(0, len(wire))) :]
    edges = [0, *sorted(draw(st.lists(st.integers(0, len(wire)), max_size=4))), len(wire)]
    return [bytes(wire[start:end]) for start, end in pairwise(edges)]


@given(reads=damaged(), reset=st.booleans())
@settings(max_examples=400)
def test_whatever_comes_there_is_one_outcome(reads: list[bytes], reset: bool) -> None:
    """A whole answer or an error, never both, never none, never an exception."""
    connection = Connection()
    taken = connection.ask(reads)
    connection.lose(ConnectionResetError() if reset else None)
    assert len(taken.outcomes) == 1
    assert not connection.upstream.reusable


@pytest.mark.parametrize("apart", [False, True], ids=["in one read", "in another"])
@pytest.mark.parametrize("extra", [b"H", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n", b"\x00", b"\r\nH", b" "])
@given(answer=answers(keeps=True))
@settings(max_examples=15)
def test_a_connection_with_bytes_left_over_is_not_used_again(answer: Answer, extra: bytes, apart: bool) -> None:
    """Else the next request would get them for an answer."""
    connection = Connection()
    check(connection.ask([answer.wire, extra] if apart else [answer.wire + extra]), answer)
    assert not connection.upstream.reusable


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b"\r\n\r\n"])
def test_a_blank_line_after_an_answer_harms_nobody(blank: bytes) -> None:
    """The parser skips those before an answer: whether the connection is used again or not, none gets a wrong one."""
    connection = Connection()
    assert connection.ask([WHOLE + blank]).outcome is None
    if connection.upstream.reusable:
        taken = connection.ask([WHOLE])
        assert (taken.outcome, taken.body) == (None, b"{}")


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 OK\r\n" + b"x-filler: y\r\n" * 30_000,
        b"HTTP/1.1 200 OK\r\nx-filler: " + b"y" * 300_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" + b"x-filler: y\r\n" * 30_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-filler: " + b"y" * 300_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"y" * 300_000,
    ],
    ids=["headers", "header", "announcements", "trailers", "trailer", "extension"],
)
def test_what_has_no_end_is_given_up(endless: bytes, at_once: bool) -> None:
    """Nothing but the body may be long: all else is kept in memory."""
    connection = Connection()
    size = 65_536 if at_once else 1000
    taken = connection.ask(endless[start : start + size] for start in range(0, len(endless), size))
    assert isinstance(taken.outcome, Broken)
    assert connection.wire.closing


def test_a_long_stream_of_short_frames_has_no_limit() -> None:
    """Frames that come in reads of their own are not taken for a head without end."""
    frames = [part for _ in range(MAX_HEAD_BYTES // 2) for part in (b"1\r\n", b"a\r\n")]
    taken = Connection().ask([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", *frames, b"0\r\n\r\n"])
    assert taken.outcome is None
    assert len(taken.body) == MAX_HEAD_BYTES // 2


# -- moments -------------------------------------------------------------------------------------------------------


def test_an_answer_before_the_request_was_sent_ends_the_connection() -> None:
    """It is given; but the engine may never read the rest, and would take the next request for it."""
    connection = Connection()
    connection.wire.unsent = 1000
    taken = connection.ask([WHOLE])
    assert taken.outcome is None
    assert not connection.upstream.reusable


def test_nothing_is_nothing() -> None:
    """Closed before the first byte: the request may have been lost on a connection that was old."""
    connection = Connection()
    taken = connection.ask([])
    connection.lose()
    assert isinstance(taken.outcome, Dropped)


@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["closed", "reset"])
@given(answer=answers(keeps=True), data=st.data())
@settings(max_examples=40)
def test_one_that_breaks_off_is_broken(answer: Answer, data: st.DataObject, error: Any) -> None:
    """Anywhere before its last byte; where nothing of it could be passed on it is as good as not begun."""
    connection = Connection()
    taken = connection.ask([answer.wire[: data.draw(st.integers(1, len(answer.wire) - 1))]])
    connection.lose(error)
    assert isinstance(taken.outcome, Broken if taken.headers or taken.body else Dropped)
    assert answer.body.startswith(taken.body)
