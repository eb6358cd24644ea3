"""The path and its query reach the engine as the client wrote them."""

from __future__ import annotations

import pytest

from tests.conformance.hop import CHAT, Hop


@pytest.mark.parametrize(
    "query", ["a=1", "a=%2Fb%20c&b=+", "b=2&a=1&b=1", "flag", "a=", "a=%C3%A9&api-version=2026-01"]
)
def test_a_query_arrives_as_written(hop: Hop, query: str) -> None:
    """Escapes, order, names that come twice or have no value."""
    hop.post(hop.body(), path=f"{CHAT}?{query}")
    assert hop.request.target == f"{CHAT}?{query}".encode()


def test_no_query_stays_none(hop: Hop) -> None:
    hop.post()
    assert hop.request.target == CHAT.encode()
