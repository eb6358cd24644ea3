"""Streams that a real vLLM sent pass byte for byte, however the network cuts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.engine import Exchange
from tests.conformance.hop import CHAT, COMPLETIONS, LAST, MESSAGES, RESPONSES, Hop
from tests.router.proxy.scripted import chunk

CAPTURES = Path(__file__).parents[1] / "captures"
RECORDED = {
    CHAT: "vllm-0.32-chat-stream.http",
    COMPLETIONS: "vllm-0.32-completions-stream.http",
    RESPONSES: "vllm-0.32-responses-stream.http",
    MESSAGES: "vllm-0.32-messages-stream.http",
}
CUTS = {"by event": 0, "by seven": 7, "by 64": 64, "by 1000": 1000, "at once": 10**9}


def recorded(path: str) -> tuple[bytes, bytes]:
    head, _, body = (CAPTURES / RECORDED[path]).read_bytes().partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", body


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("path", RECORDED)
def test_a_recorded_stream_passes(hop: Hop, path: str, cut: str) -> None:
    """Cut into chunks of any size, each written on its own."""
    head, body = recorded(path)
    size = CUTS[cut]
    if size:
        pieces = [body[start : start + size] for start in range(0, len(body), size)]
    else:
        pieces = [event + b"\n\n" for event in body.removesuffix(b"\n\n").split(b"\n\n")]

    def script(exchange: Exchange) -> None:
        exchange.send(head)
        for piece in pieces:
            exchange.send(chunk(piece))
        exchange.send(LAST)

    hop.answers(script)
    reply = hop.post(hop.body(path, stream=True), path=path)
    if reply.status in (404, 405):
        pytest.skip(f"the gateway has no {path}")
    assert reply.body() == body
    assert reply.clean


@pytest.mark.parametrize("path", RECORDED)
def test_odd_reads_do_not_change_it(hop: Hop, path: str) -> None:
    """The whole wire, head and frames of chunks too, in writes of eleven bytes."""
    head, body = recorded(path)
    wire = head + b"".join(chunk(body[start : start + 100]) for start in range(0, len(body), 100)) + LAST

    def script(exchange: Exchange) -> None:
        for start in range(0, len(wire), 11):
            exchange.send(wire[start : start + 11])

    hop.answers(script)
    reply = hop.post(hop.body(path, stream=True), path=path)
    if reply.status in (404, 405):
        pytest.skip(f"the gateway has no {path}")
    assert reply.body() == body
    assert reply.clean


def test_a_recorded_error_passes(hop: Hop) -> None:
    """Status, headers and body of vLLM's own."""
    wire = (CAPTURES / "vllm-0.32-unknown-model.http").read_bytes()
    head, _, body = wire.partition(b"\r\n\r\n")
    hop.answers(wire)
    reply = hop.post()
    assert reply.status == 404
    assert reply.body() == body
    assert reply.header("vary") == "Origin"
    assert b"content-length: %d" % len(body) in head
