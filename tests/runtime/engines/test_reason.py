"""An engine's error in words, from every shape seen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.reason import LONGEST, reason_of

SHAPES = [
    ('{"error":{"message":"vLLM says no","type":"NotFoundError","param":null,"code":404}}', "vLLM says no"),
    ('{"error":"Unauthorized"}', "Unauthorized"),
    ('{"object":"error","message":"SGLang says no","type":"BadRequestError","code":400}', "SGLang says no"),
    ('{"rid":null,"success":false,"error_message":"already loaded","loaded_adapters":{}}', "already loaded"),
    ('{"detail":"Not Found"}', "Not Found"),
    ('"a string"', "a string"),
    ("Internal Server Error\n", "Internal Server Error"),
    ("", ""),
    ('{"error":{"message":""},"code":1}', '{"error":{"message":""},"code":1}'),
    ("[1]", "[1]"),
]


@pytest.mark.parametrize(("text", "reason"), SHAPES, ids=[text[:30] for text, _ in SHAPES])
def test_the_message_is_found(text: str, reason: str) -> None:
    """JSON of any engine, or plain text."""
    assert reason_of(text) == reason


@given(st.text() | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)).map(json.dumps))
def test_any_text_has_one(text: str) -> None:
    """And it is short."""
    assert len(reason_of(text)) <= LONGEST


def test_deep_nesting_is_only_text() -> None:
    """A body made to exhaust the stack is not believed."""
    assert reason_of('{"error":' * 100_000).startswith('{"error":')
