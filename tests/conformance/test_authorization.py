"""A client's key is for the gateway and stays there; the engine gets its own."""

from __future__ import annotations

import pytest

from tests.conformance.hop import FINE, Hop


@pytest.fixture
def keyed(hop: Hop) -> Hop:
    if hop.target.key is None:
        pytest.skip("the gateway has no key (--gateway-key)")
    return hop


def test_the_clients_key_stays_here(keyed: Hop) -> None:
    """In whatever header it came."""
    assert keyed.post().status == 200
    key = (keyed.target.key or "").encode()
    assert not any(key in value for _, value in keyed.request.headers)


def test_the_clients_other_key_stays_here(keyed: Hop) -> None:
    """Anthropic's clients send it in a header of their own, some clients in both."""
    assert keyed.post(keyed.body(), f"x-api-key: {keyed.target.key}").status == 200
    key = (keyed.target.key or "").encode()
    assert not any(key in value for _, value in keyed.request.headers)


def test_the_engine_gets_its_own(hop: Hop) -> None:
    """Once."""
    if hop.target.engine_key is None:
        pytest.skip("the engine has no key (--engine-key)")
    hop.post()
    assert hop.request.all("authorization") == [f"Bearer {hop.target.engine_key}".encode()]


def test_the_clients_key_reaches_no_engine_without_one(hop: Hop) -> None:
    """Where the gateway asks for none, a client may show one that is good elsewhere."""
    if hop.target.key is not None:
        pytest.skip("the gateway has a key")
    hop.post(hop.body(), "Authorization: Bearer key-for-elsewhere")
    assert b"Bearer key-for-elsewhere" not in hop.request.all("authorization")


@pytest.mark.parametrize("shown", ["", "Authorization: Bearer wrong", "Authorization: Basic eA==", "x-api-key: wrong"])
def test_others_are_refused(keyed: Hop, shown: str) -> None:
    """401, and the engine hears nothing of it."""
    keyed.answers(FINE)
    client = keyed.client()
    body = b'{"model": "%b", "messages": [{"role": "user", "content": "%b"}]}'
    data = body % (keyed.target.model.encode(), keyed.word.encode())
    client.send(keyed.head(len(data), *([] if not shown else ["/v1/chat/completions", shown]), keyed=False) + data)
    assert client.reply().status == 401
    assert keyed.received == []
