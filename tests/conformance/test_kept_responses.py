"""What an engine keeps can be asked for: `/v1/responses/{id}` goes to the engine that made it."""

from __future__ import annotations

import json

import pytest

from tests.conformance.client import Reply
from tests.conformance.hop import RESPONSES, Hop
from tests.router.proxy.scripted import answer


def made(hop: Hop) -> tuple[str, bytes]:
    """A response that the engine has made and keeps: its id, and what the engine answers."""
    identity = f"resp_{hop.word}"
    kept = {"id": identity, "object": "response", "created_at": 1, "status": "completed", "model": "conformance"}
    body = json.dumps({**kept, "output": [], "of_the_engine": {"z": 1.0}}).encode()
    hop.answers(answer(body))
    reply = hop.post(path=RESPONSES)
    if reply.status in (404, 405):
        pytest.skip(f"the gateway has no {RESPONSES}")
    return reply.json()["id"], body


def ask(hop: Hop, method: str, path: str) -> Reply:
    client = hop.client()
    key = f"Authorization: Bearer {hop.target.key}\r\n" if hop.target.key else ""
    client.send(f"{method} {path} HTTP/1.1\r\nHost: gateway.example\r\n{key}Content-Length: 0\r\n\r\n".encode())
    return client.reply()


def test_its_id_is_the_engines(hop: Hop) -> None:
    """A client may know it from elsewhere."""
    identity, _ = made(hop)
    assert identity == f"resp_{hop.word}"


@pytest.mark.parametrize(
    ("method", "more"), [("GET", ""), ("POST", "/cancel"), ("DELETE", "")], ids=["get", "cancel", "delete"]
)
def test_it_is_asked_for_at_its_engine(hop: Hop, method: str, more: str) -> None:
    """With its id in the path, and the engine's own answer."""
    identity, body = made(hop)
    reply = ask(hop, method, f"{RESPONSES}/{identity}{more}")
    assert (reply.status, reply.body()) == (200, body)
    assert (hop.received[-1].method, hop.received[-1].target) == (
        method.encode(),
        f"{RESPONSES}/{identity}{more}".encode(),
    )
