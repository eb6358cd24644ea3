"""What the gateway itself refuses, it refuses in the shape that clients know, and asks no engine."""

from __future__ import annotations

import pytest

from tests.conformance.hop import CHAT, MESSAGES, Hop

BODIES = {
    "no JSON": b"{not json",
    "cut off": b'{"model": "conformance", "messages": [',
    "a list": b"[]",
    "empty": b"",
    "no UTF-8": b'{"model": "\xff\xfe", "messages": []}',
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_none_is_a_400(hop: Hop, case: str) -> None:
    """With OpenAI's fields, and the connection stays good."""
    client = hop.send(BODIES[case])
    reply = client.reply()
    assert reply.status == 400
    assert {"message", "type", "param", "code"} <= set(reply.json()["error"])
    hop.send(client=client)
    assert client.reply().status == 200


def test_an_unknown_model_is_a_404(hop: Hop) -> None:
    """As at OpenAI's."""
    reply = hop.post({**hop.body(), "model": "no/such-model"})
    assert reply.status == 404
    assert reply.json()["error"]["code"] == "model_not_found"
    assert hop.received == []


def test_anthropics_clients_get_their_shape(hop: Hop) -> None:
    reply = hop.post({**hop.body(MESSAGES), "model": "no/such-model"}, path=MESSAGES)
    assert reply.status == 404
    found = reply.json()
    assert (found["type"], found["error"]["type"]) == ("error", "not_found_error")


@pytest.mark.parametrize(
    "path", ["/sleep", "/wake_up", "/collective_rpc", "/load_lora_adapter", "/shutdown", "/v1/../sleep"]
)
def test_paths_of_the_engines_keepers_are_closed(hop: Hop, path: str) -> None:
    """Whoever may ask a model may not put it to sleep or load code into it."""
    reply = hop.post(hop.body(CHAT), path=path)
    assert reply.status in (400, 403, 404, 405)
    assert hop.received == []
