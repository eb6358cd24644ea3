"""Streams of which a read brings a chunk, which the parser then does not see: it must make no difference."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.proxy.frame import LIMIT
from router.proxy.upstream import Upstream
from tests.router.proxy.wire import Connection, Taken

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
FRAME = b"5\r\nhello\r\n"
HEADS = st.sampled_from([b"%x\r\n", b"%x\r\n", b"%X\r\n", b"0%x\r\n", b"%x;a=b\r\n", b'%x;a="5"\r\n'])
DECEPTIVE = st.sampled_from([b"5\r\nhello\r\n", b"0\r\n\r\n", b"\r\n", b"\r\n1\r\na\r\n", b"a\r\n", b"1\r\n"])
EDGES = st.sampled_from([9, 10, 15, 16, 17, 0xAB, 0xFF, 0x100, LIMIT - 8, LIMIT - 7, LIMIT - 6, LIMIT]).map(bytes)


@st.composite
def frames(draw: st.DrawFn, pieces: st.SearchStrategy[bytes]) -> list[tuple[bytes, bytes]]:
    """Chunks and how each is framed."""
    found = draw(st.lists(pieces, min_size=1, max_size=5))
    return [(one, draw(HEADS) % len(one) + one + b"\r\n") for one in found]


def parts(wire: bytes, edges: Iterable[int]) -> list[bytes]:
    return [wire[start:end] for start, end in pairwise(sorted({0, *edges, len(wire)}))]


def ends(sent: Sequence[bytes]) -> list[int]:
    return list(accumulate(len(one) for one in sent))


@given(stream=frames(DECEPTIVE | st.binary(min_size=1, max_size=20)))
@settings(max_examples=60)
def test_a_stream_is_the_same_wherever_it_is_cut(stream: list[tuple[bytes, bytes]]) -> None:
    """Into its chunks, and at every byte more; with two of them in one read."""
    sent = [CHUNKED, *(frame for _, frame in stream), b"0\r\n\r\n"]
    wire, between = b"".join(sent), ends(sent)
    cuts = [parts(wire, [*between, at]) for at in range(1, len(wire))]
    cuts += [parts(wire, [one for one in between if one != missing]) for missing in between]
    for reads in cuts:
        connection = Connection()
        taken = connection.ask(reads)
        assert (taken.outcome, taken.body) == (None, b"".join(piece for piece, _ in stream))
        assert connection.upstream.reusable


@given(stream=frames(EDGES | st.integers(1, LIMIT + 9).map(bytes)))
@settings(max_examples=60)
def test_chunks_of_every_size_are_passed_on(stream: list[tuple[bytes, bytes]]) -> None:
    """Those that have the usual frame with it."""
    taken = Connection().ask([CHUNKED, *(frame for _, frame in stream), b"0\r\n\r\n"])
    usual = [frame[0] != ord("0") and b";" not in frame[:5] and len(frame) < LIMIT for _, frame in stream]
    assert (taken.outcome, taken.body) == (None, b"".join(piece for piece, _ in stream))
    assert taken.frames == sum(usual)


@st.composite
def damaged_streams(draw: st.DrawFn) -> list[bytes]:
    """The reads of a stream, nearly one a chunk, in which something was lost, added or changed."""
    sent = [CHUNKED, *(frame for _, frame in draw(frames(DECEPTIVE | st.binary(min_size=1, max_size=20))))]
    sent.append(draw(st.sampled_from([b"0\r\n\r\n", b"0\r\nx-trailer: y\r\n\r\n"])))
    for _ in range(draw(st.integers(1, 2))):
        which = draw(st.integers(1, len(sent) - 1))
        one = sent[which]
        at = draw(st.integers(0, len(one)))
        sent[which] = one[:at] + draw(st.binary(max_size=3) | DECEPTIVE) + one[at + draw(st.integers(0, 4)) :]
    wire = b"".join(sent)
    edges = [one for one in ends(sent) if draw(st.integers(0, 5))]
    return parts(wire, [*edges, *draw(st.lists(st.integers(0, len(wire)), max_size=3))])


def check_against_parser(reads: Sequence[bytes]) -> Taken:
    """It must be understood as if it came byte by byte, of which the parser sees each."""
    answers = []
    for cut in (reads, [bytes([byte]) for byte in b"".join(reads)]):
        connection = Connection()
        answers.append(connection.ask(cut))
        connection.lose()
    taken, parsed = answers
    assert parsed.frames == 0
    assert type(taken.outcome) is type(parsed.outcome)
    assert parsed.body.startswith(taken.body)  # of a read with an error in it nothing is passed on
    assert taken.body == parsed.body or taken.outcome is not None
    return taken


@given(reads=damaged_streams())
@settings(max_examples=300)
def test_a_damaged_stream_is_understood_the_same_wherever_it_is_cut(reads: list[bytes]) -> None:
    check_against_parser(reads)


@pytest.mark.parametrize(
    ("reads", "whole"),
    [
        ([b"1\r\na\r\n", b"1", FRAME, b"fourteen bytes\r\n"], True),
        ([b"1\r\na\r\n1", FRAME, b"fourteen bytes\r\n"], True),
        ([b"1\r\na\r\n", b"a\r\n", FRAME, b"\r\n"], True),
        ([b"1\r\na\r\na\r\n", FRAME, b"\r\n"], True),
        ([b"1\r\na\r\n", b"b\r\nx", FRAME, b"\r\n"], True),
        ([b"1\r\na\r\n", b"1;a=", FRAME], False),
        ([b"1\r\na\r\n", b"1;a=", b"b\r\n", b"c", b"\r\n", FRAME], True),
        ([b"1\r\na", FRAME], False),
        ([b"1\r\na\r", b"\n", FRAME], True),
        ([b"1\r\na\r", FRAME], False),
        ([b"1\r\na\r\n", b"5\r\nhello\n\r"], False),
        ([b"1\r\na\r\n", b"5\r\nhelloXY"], False),
        ([b"1\r\na\r\n", b"5\n\rhello\r\n"], False),
        ([b"1\r\na\r\n", b"+\r\nhello\r\n"], False),
        ([b"1\r\na\r\n", b"0\r\n", FRAME], False),
        ([b"1\r\na\r\n0\r\n", b"x: y\r\n", FRAME], False),
    ],
)
def test_what_looks_like_a_chunk_is_one_only_between_two(reads: list[bytes], whole: bool) -> None:
    taken = check_against_parser([CHUNKED, *reads, b"0\r\n\r\n"])
    assert (taken.outcome is None) is whole


@pytest.mark.parametrize("head", [b"content-length: 30", b"x-length: none"])
def test_what_looks_like_a_chunk_in_a_body_without_chunks_is_passed_on_as_it_is(head: bytes) -> None:
    """On a connection on which chunks have come before, too."""
    connection = Connection()
    assert connection.ask([CHUNKED, FRAME, FRAME, b"0\r\n\r\n"]).frames == 2
    taken = connection.ask([b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % head, FRAME, FRAME, FRAME])
    connection.lose()
    assert (taken.outcome, taken.body, taken.frames) == (None, 3 * FRAME, 0)


class Aside(Taken):
    """A sink that steps aside after the first chunk. ``closing``: what it is written to takes no more."""

    closing = False

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bytes] = []
        self.written: list[bytes] = []

    def more(self, upstream: Upstream, piece: bytes, frame: bytes) -> None:
        super().more(upstream, piece, frame)
        upstream.straighten(self.kept.append, self.write)

    def write(self, frame: bytes) -> None:
        if self.closing:
            raise RuntimeError("the handler is closed")
        self.written.append(frame)


def test_past_a_sink_that_steps_aside_go_whole_chunks_alone() -> None:
    """What comes in another way, and the end, it is told; and of the next answer all."""
    connection, taken = Connection(), Aside()
    connection.ask([CHUNKED, FRAME, FRAME, b"5\r\nhe", b"llo\r\n", FRAME, b"0\r\n\r\n"], taken)
    assert (taken.kept, taken.written) == ([b"hello"] * 2, [FRAME] * 2)
    assert (taken.body, taken.outcome) == (b"hello" * 2, None)
    after = connection.ask([CHUNKED, FRAME, FRAME, b"0\r\n\r\n"])
    assert (after.body, after.frames) == (b"hello" * 2, 2)


def test_a_connection_that_is_kept_holds_nothing_of_its_last_answer() -> None:
    connection, taken = Connection(), Aside()
    kept = weakref.ref(taken)
    connection.ask([CHUNKED, FRAME, FRAME, b"0\r\n\r\n"], taken)
    del taken
    gc.collect()
    assert kept() is None


def test_a_chunk_that_cannot_be_written_goes_to_the_sink() -> None:
    """Which finds out why."""
    connection, taken = Connection(), Aside()
    connection.ask([CHUNKED, FRAME, FRAME], taken)
    taken.closing = True
    connection.upstream.data_received(FRAME)
    assert (taken.kept, taken.body) == ([b"hello"], b"hello" * 2)


def test_after_the_end_of_a_flight_nothing_goes_past_its_sink() -> None:
    connection, taken = Connection(), Aside()
    connection.ask([CHUNKED, FRAME, FRAME], taken)
    connection.upstream.abort()
    connection.upstream.data_received(FRAME)
    assert taken.written == [FRAME]
