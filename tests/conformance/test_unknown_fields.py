"""Every field of a request reaches the engine, whether the gateway knows it or not.

Engines have fields that no schema lists (guided decoding, priorities, cache hints); one that is dropped on the way
changes what a model says, and nobody is told.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.hop import CHAT, MESSAGES, PATHS, RESPONSES, Hop

FIELDS: dict[str, Any] = {
    "user": "somebody",
    "priority": -3,
    "guided_json": {"type": "object", "properties": {"b": {}, "a": {}}},
    "kv_transfer_params": {"do_remote_prefill": True},
    "chat_template_kwargs": {"enable_thinking": False},
    "return_token_ids": None,
    "of_next_year": [[], {}, [None, True], {"": ""}],
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_at_the_top_arrives(hop: Hop, field: str) -> None:
    """With its value."""
    hop.post(hop.body(**{field: FIELDS[field]}))
    sent = json.loads(hop.request.body)
    assert field in sent
    assert sent[field] == FIELDS[field]


def test_a_field_inside_arrives(hop: Hop) -> None:
    """In a message, in a part of its content, in a tool."""
    part = {"type": "text", "text": hop.word, "cache_control": {"type": "ephemeral"}}
    message = {"role": "user", "content": [part], "of_next_year": 1}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "of_next_year": 2}}
    hop.post(hop.body(messages=[message], tools=[tool]))
    sent = json.loads(hop.request.body)
    assert sent["messages"] == [message]
    assert sent["tools"] == [tool]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_added(hop: Hop, path: str) -> None:
    """Defaults are the engine's own business; a field that an older engine does not know is a 400 there."""
    body = hop.body(path)
    reply = hop.post(body, path=path)
    if reply.status in (404, 405):
        pytest.skip(f"the gateway has no {path}")
    assert set(json.loads(hop.request.body)) == set(body)


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
def test_order_is_kept(hop: Hop, path: str) -> None:
    """A prompt's template may depend on it, and a prefix cache does."""
    fields = {"zeta": 1, "alpha": {"z": 1, "a": 2, "m": 3}, "mid": 2}
    reply = hop.post({**fields, **hop.body(path), "beta": 3}, path=path)
    if reply.status in (404, 405):
        pytest.skip(f"the gateway has no {path}")
    order = list(json.loads(hop.request.body))
    assert order == ["zeta", "alpha", "mid", *hop.body(path), "beta"]
    assert list(json.loads(hop.request.body)["alpha"]) == ["z", "a", "m"]
