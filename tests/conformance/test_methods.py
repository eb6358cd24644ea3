"""HEAD and OPTIONS, and methods that a path does not have, are answered as HTTP has it."""

from __future__ import annotations

import pytest

from tests.conformance.client import Client, Reply
from tests.conformance.hop import CHAT, Hop


def ask(hop: Hop, method: str, path: str, client: Client) -> Reply:
    key = f"Authorization: Bearer {hop.target.key}\r\n" if hop.target.key else ""
    client.send(f"{method} {path} HTTP/1.1\r\nHost: gateway.example\r\n{key}\r\n".encode())
    return client.reply()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_method_that_a_path_does_not_have_is_a_405(hop: Hop, method: str) -> None:
    """And the engine is not asked."""
    reply = ask(hop, method, CHAT, hop.client())
    assert reply.status == 405
    assert "POST" in (reply.header("allow") or "")
    assert hop.received == []


@pytest.mark.parametrize("path", ["/health", "/v1/models", CHAT])
def test_head_has_no_body(hop: Hop, path: str) -> None:
    """Whatever its status, the next answer on the connection is the next answer."""
    client = hop.client()
    key = f"Authorization: Bearer {hop.target.key}\r\n" if hop.target.key else ""
    client.send(f"HEAD {path} HTTP/1.1\r\nHost: gateway.example\r\n{key}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.socket.recv(1)
        assert byte, "the gateway closed the connection"
        head += byte
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 404", b"HTTP/1.1 405"))
    hop.send(client=client)
    assert client.reply().status == 200


def test_options_does_not_reach_an_engine(hop: Hop) -> None:
    """Browsers ask before they ask."""
    reply = ask(hop, "OPTIONS", CHAT, hop.client())
    assert reply.status in (200, 204, 403, 405)
    assert hop.received == []


def test_models_are_listed(hop: Hop) -> None:
    """In OpenAI's shape."""
    reply = ask(hop, "GET", "/v1/models", hop.client())
    assert reply.status == 200
    assert hop.target.model in [one["id"] for one in reply.json()["data"]]
